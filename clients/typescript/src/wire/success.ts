/** Converts outcomes to successful responses or errors. */

import {
  APIStatusError,
  AuthenticationError,
  BadRequestError,
  ConflictError,
  InternalServerError,
  KeyLimitError,
  NotFoundError,
  PermissionDeniedError,
  PreconditionFailedError,
  RateLimitError,
  UnprocessableEntityError,
} from "../errors.js";
import { problemIn, textIn } from "./problem.js";
import { Response } from "./response.js";
import type { Outcome } from "./retry.js";

const BY_STATUS: ReadonlyMap<number, typeof APIStatusError> = new Map<number, typeof APIStatusError>([
  [400, BadRequestError],
  [401, AuthenticationError],
  [403, PermissionDeniedError],
  [404, NotFoundError],
  [409, ConflictError],
  [412, PreconditionFailedError],
  [422, UnprocessableEntityError],
  [429, RateLimitError],
]);

/** Return *outcome* if it is a success, and throw its error otherwise. */
export function successOf(outcome: Outcome): Response {
  if (!(outcome instanceof Response)) throw outcome.error;
  if (!outcome.isSuccess) throw errorFor(outcome);
  return outcome;
}

/** Return the error for *response*, which is not a success. */
export function errorFor(response: Response): APIStatusError {
  const isKeyLimit = response.status === 409 && textIn(problemIn(response), "code") === "key_limit_reached";
  if (isKeyLimit) return new KeyLimitError(response);
  const kind = BY_STATUS.get(response.status) ?? (response.status >= 500 ? InternalServerError : APIStatusError);
  return new kind(response);
}
