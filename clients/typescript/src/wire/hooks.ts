/** What a client reports about each request: for logs, metrics and traces of one's own. No event has a secret. */

/** A request that is sent next. */
export interface RequestEvent {
  /** The method of HTTP. */
  readonly method: string;
  /** The address, without its query. */
  readonly url: string;
  /** Counts from 1. */
  readonly attempt: number;
}

/** The end of a request: its response, or the error that there is none. */
export interface ResponseEvent extends RequestEvent {
  /** How long the request took. */
  readonly milliseconds: number;
  /** The HTTP status; `null` without a response. */
  readonly status: number | null;
  /** The server's id of the request, for questions to support. */
  readonly requestId: string | null;
  /** Why there is no response. */
  readonly error: Error | null;
}

/** Writes a line for each attempt and each retry; `console` is one. */
export interface Logger {
  /** Write one line. */
  debug(message: string): void;
}

/** The functions to call. What they throw is thrown by the call. */
export interface Hooks {
  readonly onRequest?: ((event: RequestEvent) => void) | undefined;
  readonly onResponse?: ((event: ResponseEvent) => void) | undefined;
  readonly logger?: Logger | undefined;
}

/** Report a request that is sent next. */
export function reportRequest(hooks: Hooks, event: RequestEvent): void {
  hooks.onRequest?.(event);
}

/** Report the end of a request. */
export function reportResponse(hooks: Hooks, event: ResponseEvent): void {
  const { method, url, attempt, status, requestId, error } = event;
  const end = status === null ? `no response: ${error?.name}` : `status ${status}, request ${requestId}`;
  hooks.logger?.debug(`machpay: ${method} ${url} got ${end} (attempt ${attempt})`);
  hooks.onResponse?.(event);
}
