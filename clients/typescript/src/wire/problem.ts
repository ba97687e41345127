/** Error responses, and their messages of one line. */

import type { Response } from "./response.js";

/** The JSON object in a response. */
export type Problem = Readonly<Record<string, unknown>>;

const MAX_DETAIL = 300; // keeps a message to one line, whatever page a proxy sends
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

/** Return the JSON object in *response*, or an empty one if there is none, as in a proxy's page. */
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

/** Return the reason phrase of *status*, which HTTP/2 does not send. */
export function reasonPhrase(status: number): string {
  return PHRASES.get(status) ?? "Unknown status";
}

/** Return *text* on one line, truncated. */
export function onOneLine(text: string): string {
  const line = text.replace(NOT_PRINTABLE, " ").split(/\s+/).filter(Boolean).join(" ");
  return line.length > MAX_DETAIL ? `${line.slice(0, MAX_DETAIL)}…` : line;
}

/** Return *text* on one line, with a period at its end. */
export function asSentence(text: string): string {
  const line = onOneLine(text);
  return /[.!?…]$/.test(line) ? line : `${line}.`;
}
