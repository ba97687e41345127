/** The TypeScript client of the MachPay API: `MachPay`. */

export { MachPay } from "./client.js";
export {
  APIConnectionError,
  APIStatusError,
  APITimeoutError,
  APIUserAbortError,
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
export { DPoPKey } from "./oauth/dpop.js";
export { VERSION } from "./version.js";

export type { AuthorizationParams, AuthorizationRequest } from "./oauth/authorization.js";
export type { Callback, CallbackExpectations } from "./oauth/callback.js";
export type { DPoPJwk, DPoPKeyPair, WebCryptoKey } from "./oauth/dpop.js";
export type { LoadTokens, OnTokens, StoredTokens } from "./oauth/token-store.js";
export type { Accounts } from "./resources/accounts.js";
export type {
  KeyChange,
  KeyCreation,
  KeyFilter,
  KeyRevocation,
  KeyRotation,
  Keys,
  UsagePeriod,
} from "./resources/keys.js";
export type {
  ApplicationCredentials,
  ClientCredentialsRequest,
  CodeExchange,
  OAuth,
  TokenIntrospection,
  TokenRefresh,
  TokenRevocation,
} from "./resources/oauth.js";
export type { AuditLog, AuditLogFilter } from "./resources/audit-log.js";
export type { GrantFilter, Grants } from "./resources/grants.js";
export type {
  ClientSecretRotation,
  OAuthClientChange,
  OAuthClientCreation,
  OAuthClientFilter,
  OAuthClients,
} from "./resources/oauth-clients.js";
export type { EndpointRequest, Requests } from "./resources/requests.js";
export type { SessionCreation, Sessions } from "./resources/sessions.js";
export type { SkillExecution, Skills } from "./resources/skills.js";
export type { Account, Environment, Identity, PolicyLevel, RemainingLimits, TierLimits } from "./results/account.js";
export type { AuditActor, AuditEntry } from "./results/audit-entry.js";
export type { Grant } from "./results/grant.js";
export type { Introspection } from "./results/introspection.js";
export type { IssuedKey, Key, KeySecret } from "./results/key.js";
export type {
  ClientSecret,
  DeletedOAuthClient,
  GrantType,
  IssuedOAuthClient,
  OAuthClient,
} from "./results/oauth-client.js";
export type { Listing, Page } from "./results/page.js";
export type { Result } from "./results/result.js";
export type { Session } from "./results/session.js";
export type { Execution, Skill } from "./results/skill.js";
export type { Tokens } from "./results/tokens.js";
export type { Latency, Usage, UsageCounts } from "./results/usage.js";
export type { ClientOptions } from "./settings/client-options.js";
export type { Fetch } from "./settings/options.js";
export type { IdempotencyOptions, RequestOptions } from "./settings/request-options.js";
export type { Body, Query, QueryValue } from "./wire/call.js";
export type { Logger, RequestEvent, ResponseEvent } from "./wire/hooks.js";
export type { Problem } from "./wire/problem.js";
export type { RateLimit, RateLimitPolicy } from "./wire/rate-limit.js";
export type { Response } from "./wire/response.js";
export type { ServerSentEvent } from "./wire/server-sent-events.js";
export type { Stream } from "./wire/stream.js";
