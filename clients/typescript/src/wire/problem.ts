/** What an error's answer says, and how that is put into a message of one line. */

import type { Response } from "./response.js";

/** The JSON object in an answer. */
export type Problem = Readonly<Record<string, unknown>>;

const LONGEST_DETAIL = 300; // a message is one line, and a proxy's page is not
const NOT_PRINTABLE = /[\p{C}\p{Zl}\p{Zp}]/gu;
const PHRASES: ReadonlyMap<number, string> = new Map([
  [0, "Redirect"],
  [301, "Moved Permanently"],
  [302, "Found"],
  [303, "See Other"],
  [307, "Temporary Redirect"],
  [308, "Permanent Redirect"],
  [400, "Bad Request"],
  [401, "Unauthorized"],
  [403, "Forbidden"],
  [404, "Not Found"],
  [405, "Method Not Allowed"],
  [408, "Request Timeout"],
  [409, "Conflict"],
  [412, "Precondition Failed"],
  [413, "Content Too Large"],
  [415, "Unsupported Media Type"],
  [422, "Unprocessable Content"],
  [429, "Too Many Requests"],
  [500, "Internal Server Error"],
  [501, "Not Implemented"],
  [502, "Bad Gateway"],
  [503, "Service Unavailable"],
  [504, "Gateway Timeout"],
]);

/** Return the JSON object in *response*, an empty one when there is none: a proxy's page is no problem+json. */
export function problemIn(response: Response): Problem {
  try {
    const body: unknown = JSON.parse(response.body);
    return typeof body === "object" && body !== null && !Array.isArray(body) ? (body as Problem) : {};
  } catch {
    return {};
  }
}

/** Return the string *name* of *problem*. */
export function textIn(problem: Problem, name: string): string | null {
  const value = problem[name];
  return typeof value === "string" ? value : null;
}

/** Return the strings in the array *name* of *problem*. */
export function stringsIn(problem: Problem, name: string): readonly string[] {
  const value = problem[name];
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

/** Return what HTTP calls *status*. HTTP/2 does not send it. */
export function reasonPhrase(status: number): string {
  return PHRASES.get(status) ?? "Unknown status";
}

/** Return *text* on one line, cut where it gets long. */
export function onOneLine(text: string): string {
  const line = text.replace(NOT_PRINTABLE, " ").split(/\s+/).filter(Boolean).join(" ");
  return line.length > LONGEST_DETAIL ? `${line.slice(0, LONGEST_DETAIL)}…` : line;
}

/** Return *text* on one line, with a stop at its end. */
export function asSentence(text: string): string {
  const line = onOneLine(text);
  return /[.!?…]$/.test(line) ? line : `${line}.`;
}
