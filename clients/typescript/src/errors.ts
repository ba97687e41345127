/**
 * The errors, as a tree to catch from.
 *
 * * MachPayError
 *   x ConfigurationError         an invalid configuration of the client
 *   x InvalidArgumentError       an invalid argument of a call; nothing was sent
 *   x APIConnectionError         there is no response
 *     + APITimeoutError
 *   x APIUserAbortError          the call was aborted by its `signal`
 *   x InvalidResponseError       the response does not follow this API
 *   x OAuthError                 the authorization server refuses, or a callback is forged: `.error`
 *   x APIStatusError             an error response: problem+json (RFC 9457), or any page of a proxy
 *     + BadRequestError          400
 *     + AuthenticationError      401
 *     + PermissionDeniedError    403, `.requiredScopes`
 *     + NotFoundError            404
 *     + ConflictError            409
 *       x KeyLimitError          the account has as many working keys as its tier allows
 *     + PreconditionFailedError  412
 *     + UnprocessableEntityError 422, `.errors`
 *     + RateLimitError           429, `.retryAfter`, `.violatedPolicies`
 *     + InternalServerError      500 and above
 *
 * No message contains a credential. Each class sets its name in its prototype: minifiers shorten class names.
 */

import { asSentence, onOneLine, problemIn, reasonPhrase, stringsIn, textIn, type Problem } from "./wire/problem.js";
import type { RateLimit } from "./wire/rate-limit.js";
import type { Response } from "./wire/response.js";

/** The base class of all errors of this package. */
export class MachPayError extends Error {
  static {
    this.prototype.name = "MachPayError";
  }
}

/** The configuration of the client is invalid. */
export class ConfigurationError extends MachPayError {
  static {
    this.prototype.name = "ConfigurationError";
  }
}

/** An argument of a call is invalid. Nothing was sent. */
export class InvalidArgumentError extends MachPayError {
  static {
    this.prototype.name = "InvalidArgumentError";
  }
}

/** There is no response: the server was not reached, or the connection broke. */
export class APIConnectionError extends MachPayError {
  static {
    this.prototype.name = "APIConnectionError";
  }
}

/** There is no response in time. */
export class APITimeoutError extends APIConnectionError {
  static {
    this.prototype.name = "APITimeoutError";
  }
}

/** The call was aborted: by its `signal`, which is the cause, or by an own `fetch`. It is never retried. */
export class APIUserAbortError extends MachPayError {
  static {
    this.prototype.name = "APIUserAbortError";
  }

  /** @internal */
  constructor(cause: unknown) {
    super("The call was aborted.", { cause });
  }
}

/** The response does not follow this API. It is in `.response`. */
export class InvalidResponseError extends MachPayError {
  static {
    this.prototype.name = "InvalidResponseError";
  }

  /** The response. */
  readonly response: Response;

  /** @internal */
  constructor(message: string, response: Response) {
    super(message);
    this.response = response;
  }
}

/**
 * The authorization server refuses (RFC 6749 §5.2), or a callback is forged.
 *
 * For a callback, `.error` is the error in it, or `state_mismatch`, `issuer_mismatch` or `missing_code`.
 */
export class OAuthError extends MachPayError {
  static {
    this.prototype.name = "OAuthError";
  }

  /** The error's code, as in `invalid_grant`. */
  readonly error: string;
  /** What the server says about it, for developers. */
  readonly errorDescription: string | null;
  /** The response; `null` for an error in a callback. */
  readonly response: Response | null;

  /** @internal */
  constructor(error: string, errorDescription: string | null = null, response: Response | null = null) {
    const description = errorDescription === null ? "" : `: ${asSentence(errorDescription)}`;
    super(`${onOneLine(error)}${description}${requestIn(response?.requestId ?? null)}`);
    this.error = error;
    this.errorDescription = errorDescription;
    this.response = response;
  }

  /** The HTTP status; `null` for an error in a callback. */
  get status(): number | null {
    return this.response?.status ?? null;
  }

  /** The server's id of the request, for questions to support. */
  get requestId(): string | null {
    return this.response?.requestId ?? null;
  }
}

/** An error response. Members that the server did not send are `null`. */
export class APIStatusError extends MachPayError {
  static {
    this.prototype.name = "APIStatusError";
  }

  /** The response. */
  readonly response: Response;
  /** The body of the response. */
  readonly problem: Problem;
  /** The address of a page about this kind of problem. */
  readonly type: string | null;
  /** What kind of problem it is. */
  readonly title: string | null;
  /** What is wrong with this request. */
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

  /** The headers of the response. */
  get headers(): Headers {
    return this.response.headers;
  }

  /** The server's id of the request, for questions to support. */
  get requestId(): string | null {
    return this.response.requestId ?? textIn(this.problem, "request_id");
  }

  /** The limits that the request counted against. */
  get rateLimit(): RateLimit | null {
    return this.response.rateLimit;
  }

  /**
   * Return an addition to the message for this type of error.
   * @internal
   */
  static hint(_problem: Problem, response: Response): string {
    if (!response.isRedirect) return "";
    return "Redirects are never followed, they could send the credential elsewhere; check baseUrl and authUrl.";
  }
}

/** 400: the request is malformed. */
export class BadRequestError extends APIStatusError {
  static {
    this.prototype.name = "BadRequestError";
  }
}

/** 401: the credential is missing, unknown, expired or revoked. The server does not say which. */
export class AuthenticationError extends APIStatusError {
  static {
    this.prototype.name = "AuthenticationError";
  }
}

/** 403: the credential is valid, but not permitted to do this, or not from this address. */
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

/** 404: there is no such object in this account. */
export class NotFoundError extends APIStatusError {
  static {
    this.prototype.name = "NotFoundError";
  }
}

/** 409: the request conflicts with the current state, or its idempotency key was used for another request. */
export class ConflictError extends APIStatusError {
  static {
    this.prototype.name = "ConflictError";
  }
}

/** 409 `key_limit_reached`: the account has as many working keys as its tier allows. Revoke one first. */
export class KeyLimitError extends ConflictError {
  static {
    this.prototype.name = "KeyLimitError";
  }
}

/** 412: the object has changed since it was retrieved (`ifMatch`). */
export class PreconditionFailedError extends APIStatusError {
  static {
    this.prototype.name = "PreconditionFailedError";
  }
}

/** 422: the request is well-formed, but some fields are invalid. */
export class UnprocessableEntityError extends APIStatusError {
  static {
    this.prototype.name = "UnprocessableEntityError";
  }

  /** The errors in fields: objects with `place` and `reason`. */
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

/** 429: too many requests, or too many at the same time. */
export class RateLimitError extends APIStatusError {
  static {
    this.prototype.name = "RateLimitError";
  }

  /** The seconds to wait before the next request. */
  get retryAfter(): number | null {
    return retryAfterIn(this.problem, this.response);
  }

  /** The names of the limits that were reached. Their values are in `.rateLimit`. */
  get violatedPolicies(): readonly string[] {
    return stringsIn(this.problem, "violated_policies");
  }

  /** @internal */
  static override hint(problem: Problem, response: Response): string {
    const seconds = retryAfterIn(problem, response);
    return seconds === null ? "" : `Retry in ${seconds} s.`;
  }
}

/** 500 and above: the server failed. */
export class InternalServerError extends APIStatusError {
  static {
    this.prototype.name = "InternalServerError";
  }
}

function messageOf(response: Response, problem: Problem, hint: string): string {
  const parts = [textIn(problem, "title") || reasonPhrase(response.status), textIn(problem, "detail"), hint];
  const text = parts.filter((part) => part !== null && part !== "").map((part) => asSentence(part ?? ""));
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
  const value = problem["retry_after"];
  return response.retryAfter ?? (typeof value === "number" ? value : null);
}
