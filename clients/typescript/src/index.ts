/** The TypeScript client of the MachPay API: `MachPay`. */

export { MachPay } from "./client.js";
export {
  APIConnectionError,
  APIStatusError,
  APITimeoutError,
  AuthenticationError,
  BadRequestError,
  ConfigurationError,
  ConflictError,
  InternalServerError,
  InvalidArgumentError,
  InvalidResponseError,
  KeyLimitError,
  MachPayError,
  NotFoundError,
  OAuthError,
  PermissionDeniedError,
  PreconditionFailedError,
  RateLimitError,
  UnprocessableEntityError,
} from "./errors.js";
export { VERSION } from "./version.js";

export type { AuthorizationParams, AuthorizationRequest } from "./oauth/authorization.js";
export type { Callback, CallbackExpectations } from "./oauth/callback.js";
export type { OnTokens } from "./oauth/token-refresher.js";
export type { Accounts } from "./resources/accounts.js";
export type {
  KeyChange,
  KeyCreation,
  KeyFilter,
  KeyRevocation,
  KeyRotation,
  Keys,
  IdempotencyOptions,
  UsagePeriod,
} from "./resources/keys.js";
export type { CodeExchange, OAuth, OAuthClient, TokenRefresh, TokenRevocation } from "./resources/oauth.js";
export type { SessionCreation, Sessions } from "./resources/sessions.js";
export type { SkillExecution, Skills } from "./resources/skills.js";
export type { Account, Identity } from "./results/account.js";
export type { IssuedKey, Key, KeySecret } from "./results/key.js";
export type { Listing, Page } from "./results/page.js";
export type { Result } from "./results/result.js";
export type { Session } from "./results/session.js";
export type { Execution, Skill } from "./results/skill.js";
export type { Tokens } from "./results/tokens.js";
export type { Latency, Usage, UsageCounts } from "./results/usage.js";
export type { ClientOptions } from "./settings/client-options.js";
export type { Fetch } from "./settings/options.js";
export type { Problem } from "./wire/problem.js";
export type { RateLimit, RateLimitPolicy } from "./wire/rate-limit.js";
export type { Response } from "./wire/response.js";
