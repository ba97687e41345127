/** Sends calls to the API with a credential, once more with a new one if it is refused. */

import { APIStatusError } from "../errors.js";
import type { DPoPKey } from "../oauth/dpop.js";
import type { Credential } from "../settings/credential.js";
import { deadlineOf, optionsWith, type Options } from "../settings/options.js";
import { untilAborted, within } from "./abort.js";
import { headersOf, isRepeatable, queryOf, type Call } from "./call.js";
import type { Effects } from "./effects.js";
import { problemIn, textIn } from "./problem.js";
import { Response } from "./response.js";
import type { Outcome } from "./retry.js";
import { CallProgress, sendWithRetries, type HttpRequest } from "./sender.js";
import { Stream } from "./stream.js";
import { successOf } from "./success.js";

/** The source of the credential of each call. */
export interface Credentials {
  /** Return the credential to use now. Throw if there is none. */
  current(): Promise<Credential>;
  /** Return another credential than the *refused* one, or `null` if there is no way to get one. */
  replacement(refused: Credential): Promise<Credential | null>;
  /** The masked credential. */
  readonly masked: string | null;
}

export class Transport {
  readonly options: Options;
  readonly credentials: Credentials;
  readonly effects: Effects;
  readonly dpopKey: DPoPKey | undefined;

  constructor(options: Options, credentials: Credentials, effects: Effects, dpopKey?: DPoPKey) {
    this.options = options;
    this.credentials = credentials;
    this.effects = effects;
    this.dpopKey = dpopKey;
  }

  /** Return the successful response to *call*. Throw an error for any other. */
  async send(call: Call): Promise<Response> {
    const outcome = await this.#outcomeOf(call, false);
    return outcome instanceof Stream ? outcome.response : successOf(outcome);
  }

  /** Return the stream of the successful response to *call*. Throw an error for any other. */
  async open(call: Call): Promise<Stream> {
    const outcome = await this.#outcomeOf(call, true);
    if (outcome instanceof Stream) return outcome;
    throw new APIStatusError(successOf(outcome));
  }

  async #outcomeOf(call: Call, isStream: boolean): Promise<Outcome | Stream> {
    const options = optionsWith(this.options, { timeout: call.options.timeout, maxRetries: call.options.maxRetries });
    const { signal } = call.options;
    const headers = headersOf(call, options.headers, this.effects.newIdempotencyKey);
    const credential = await this.#waited(() => this.credentials.current(), options, signal);
    const progress = new CallProgress(this.effects.monotonic);
    const send = (used: Credential): Promise<Outcome | Stream> =>
      sendWithRetries(this.#request(call, headers, used, isStream), options, this.effects, progress);
    const outcome = await send(credential);
    if (!isRefusedCredential(outcome)) return outcome;
    const replacement = (): Promise<Credential | null> => this.credentials.replacement(credential);
    const other = await progress.withoutCounting(() => this.#waited(replacement, options, signal));
    return other === null ? outcome : send(other);
  }

  /** Return a credential. A refresh, and `onTokens`, have twice the time of a call. */
  #waited<T>(work: () => Promise<T>, options: Options, signal: AbortSignal | null | undefined): Promise<T> {
    const limit = 2 * deadlineOf(options);
    const message = `The access token was not refreshed in ${limit / 1000} s. Do onTokens and loadTokens return?`;
    return untilAborted(within(work(), limit, message), signal);
  }

  #request(call: Call, headers: Record<string, string>, credential: Credential, isStream: boolean): HttpRequest {
    const { dpopKey, effects } = this;
    return {
      method: call.method,
      origin: this.options.baseUrl,
      path: call.path,
      query: queryOf(call),
      headers: {
        ...headers,
        Authorization: dpopKey === undefined ? credential.authorization : `DPoP ${credential.value}`,
      },
      body: call.body ?? null,
      repeat: isRepeatable(call) ? "always" : "unperformed",
      secrets: [credential.value],
      signal: call.options.signal,
      proof: dpopKey && ((method, url) => dpopKey.proof(method, url, credential.value, effects.now())),
      isStream,
    };
  }
}

function isRefusedCredential(outcome: Outcome | Stream): boolean {
  if (!(outcome instanceof Response) || outcome.status !== 401) return false;
  return textIn(problemIn(outcome), "code") === "invalid_credentials";
}
