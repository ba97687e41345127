/**
 * What can go wrong, as a tree to catch from.
 *
 * * MachPayError
 *   x ConfigurationError         the client cannot be set up like this
 *   x InvalidArgumentError       the call cannot be made like this; nothing was sent
 *   x APIConnectionError         there is no answer
 *     + APITimeoutError
 *   x InvalidResponseError       there is an answer, and it is not what this API says
 *   x OAuthError                 the authorization server, or a callback, says no: `.error`, `.errorDescription`
 *   x APIStatusError             the answer is an error: problem+json (RFC 9457), or whatever a proxy says
 *     + BadRequestError          400
 *     + AuthenticationError      401
 *     + PermissionDeniedError    403, `.requiredScopes`
 *     + NotFoundError            404
 *     + ConflictError            409
 *     + PreconditionFailedError  412
 *     + UnprocessableEntityError 422, `.errors`
 *     + RateLimitError           429, `.retryAfter`, `.violatedPolicies`
 *     + InternalServerError      500 and above
 *
 * No message contains a credential. Each class names itself in its prototype: a minifier shortens classes' own names.
 */

import { asSentence, onOneLine, problemIn, reasonPhrase, stringsIn, textIn, type Problem } from "./wire/problem.js";
import type { RateLimit } from "./wire/rate-limit.js";
import type { Response } from "./wire/response.js";

/** Anything that this package throws. */
export class MachPayError extends Error {
  static {
    this.prototype.name = "MachPayError";
  }
}

/** The client cannot be set up like this. */
export class ConfigurationError extends MachPayError {
  static {
    this.prototype.name = "ConfigurationError";
  }
}

/** The call cannot be made like this. Nothing was sent. */
export class InvalidArgumentError extends MachPayError {
  static {
    this.prototype.name = "InvalidArgumentError";
  }
}

/** There is no answer: the server was not reached, or the connection broke. */
export class APIConnectionError extends MachPayError {
  static {
    this.prototype.name = "APIConnectionError";
  }
}

/** There is no answer in time. */
export class APITimeoutError extends APIConnectionError {
  static {
    this.prototype.name = "APITimeoutError";
  }
}

/** The answer is not what this API says; `.response` holds it. */
export class InvalidResponseError extends MachPayError {
  static {
    this.prototype.name = "InvalidResponseError";
  }

  readonly response: Response;

  /** @internal */
  constructor(message: string, response: Response) {
    super(message);
    this.response = response;
  }
}

/**
 * The authorization server says no (RFC 6749 §5.2), or what came to the callback is not to be trusted.
 *
 * Of a callback, `.error` is what the server said there, or `state_mismatch`, `issuer_mismatch` or `missing_code`.
 */
export class OAuthError extends MachPayError {
  static {
    this.prototype.name = "OAuthError";
  }

  /** The error's code, as in `invalid_grant`. */
  readonly error: string;
  readonly errorDescription: string | null;
  /** The answer that says it; `null` when a callback does. */
  readonly response: Response | null;

  /** @internal */
  constructor(error: string, errorDescription: string | null = null, response: Response | null = null) {
    const said = errorDescription === null ? "" : `: ${asSentence(errorDescription)}`;
    super(`${onOneLine(error)}${said}${requestIn(response?.requestId ?? null)}`);
    this.error = error;
    this.errorDescription = errorDescription;
    this.response = response;
  }

  /** The HTTP status; `null` when a callback says no. */
  get status(): number | null {
    return this.response?.status ?? null;
  }

  /** What the server calls this request; name it to support. */
  get requestId(): string | null {
    return this.response?.requestId ?? null;
  }
}

/** The answer is an error. What the server did not say of it is `null`. */
export class APIStatusError extends MachPayError {
  static {
    this.prototype.name = "APIStatusError";
  }

  readonly response: Response;
  /** What the answer says, as it came. */
  readonly problem: Problem;
  readonly type: string | null;
  readonly title: string | null;
  readonly detail: string | null;
  /** The reason's stable name. */
  readonly code: string | null;

  /** @internal */
  constructor(response: Response) {
    const problem = problemIn(response);
    super(messageOf(response, problem, new.target.hint(problem, response)));
    this.response = response;
    this.problem = problem;
    this.type = textIn(problem, "type");
    this.title = textIn(problem, "title");
    this.detail = textIn(problem, "detail");
    this.code = textIn(problem, "code");
  }

  /** The HTTP status. */
  get status(): number {
    return this.response.status;
  }

  /** The answer's headers. */
  get headers(): Headers {
    return this.response.headers;
  }

  /** What the server calls this request; name it to support. */
  get requestId(): string | null {
    return this.response.requestId ?? textIn(this.problem, "request_id");
  }

  /** The limits that the request counted against. */
  get rateLimit(): RateLimit | null {
    return this.response.rateLimit;
  }

  /**
   * Return what else to say, with what this kind of error knows.
   * @internal
   */
  static hint(_problem: Problem, response: Response): string {
    if (!response.isRedirect) return "";
    return "Redirects are never followed, they could lead the credential elsewhere; check baseUrl and authUrl.";
  }
}

/** 400: the server cannot read the request. */
export class BadRequestError extends APIStatusError {
  static {
    this.prototype.name = "BadRequestError";
  }
}

/** 401: the credential is missing, unknown, expired or revoked; the server tells nobody which. */
export class AuthenticationError extends APIStatusError {
  static {
    this.prototype.name = "AuthenticationError";
  }
}

/** 403: the credential is good, and may not do this, or not from here. */
export class PermissionDeniedError extends APIStatusError {
  static {
    this.prototype.name = "PermissionDeniedError";
  }

  /** The scopes that the call needs and the credential lacks. */
  get requiredScopes(): readonly string[] {
    return stringsIn(this.problem, "required_scopes");
  }

  /** @internal */
  static override hint(problem: Problem): string {
    const scopes = stringsIn(problem, "required_scopes");
    return scopes.length > 0 ? `Required: ${scopes.join(", ")}.` : "";
  }
}

/** 404: there is nothing of that name, or not for this account. */
export class NotFoundError extends APIStatusError {
  static {
    this.prototype.name = "NotFoundError";
  }
}

/** 409: the request does not fit the present state, or its idempotency key was used for another one. */
export class ConflictError extends APIStatusError {
  static {
    this.prototype.name = "ConflictError";
  }
}

/** 412: what was to be changed has changed meanwhile; retrieve it anew. */
export class PreconditionFailedError extends APIStatusError {
  static {
    this.prototype.name = "PreconditionFailedError";
  }
}

/** 422: the request is readable, and something in it is not acceptable. */
export class UnprocessableEntityError extends APIStatusError {
  static {
    this.prototype.name = "UnprocessableEntityError";
  }

  /** What is wrong where: objects with `place` and `reason`. */
  get errors(): readonly Problem[] {
    return errorsIn(this.problem);
  }

  /** @internal */
  static override hint(problem: Problem): string {
    return errorsIn(problem)
      .map((error) => `${String(error["place"])}: ${String(error["reason"])}`)
      .join("; ");
  }
}

/** 429: too much at once, or too often. */
export class RateLimitError extends APIStatusError {
  static {
    this.prototype.name = "RateLimitError";
  }

  /** The seconds after which to ask again. */
  get retryAfter(): number | null {
    return retryAfterIn(this.problem, this.response);
  }

  /** The names of the limits that were reached; `.rateLimit` has their figures. */
  get violatedPolicies(): readonly string[] {
    return stringsIn(this.problem, "violated_policies");
  }

  /** @internal */
  static override hint(problem: Problem, response: Response): string {
    const seconds = retryAfterIn(problem, response);
    return seconds === null ? "" : `Ask again in ${seconds} s.`;
  }
}

/** 500 and above: the server's side failed. */
export class InternalServerError extends APIStatusError {
  static {
    this.prototype.name = "InternalServerError";
  }
}

function messageOf(response: Response, problem: Problem, hint: string): string {
  const said = [textIn(problem, "title") || reasonPhrase(response.status), textIn(problem, "detail"), hint];
  const text = said.filter((part) => part !== null && part !== "").map((part) => asSentence(part ?? ""));
  return `${response.status} ${text.join(" ")}${requestIn(response.requestId ?? textIn(problem, "request_id"))}`;
}

function requestIn(requestId: string | null): string {
  return requestId === null ? "" : ` (request ${requestId})`;
}

function errorsIn(problem: Problem): readonly Problem[] {
  const value = problem["errors"];
  return Array.isArray(value) ? value.filter((item) => typeof item === "object" && item !== null) : [];
}

function retryAfterIn(problem: Problem, response: Response): number | null {
  const said = problem["retry_after"];
  return response.retryAfter ?? (typeof said === "number" ? said : null);
}
