/** Sends calls to the API with a credential, once more with a new one if it is refused. */

import type { Credential } from "../settings/credential.js";
import type { Options } from "../settings/options.js";
import { headersOf, targetOf, type Call } from "./call.js";
import { sendWithRetries, CallProgress, type HttpRequest } from "./sender.js";
import type { Effects } from "./effects.js";
import { problemIn, textIn } from "./problem.js";
import { Response } from "./response.js";
import type { Outcome } from "./retry.js";
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

  constructor(options: Options, credentials: Credentials, effects: Effects) {
    this.options = options;
    this.credentials = credentials;
    this.effects = effects;
  }

  /** Return the successful response to *call*. Throw an error for any other. */
  async send(call: Call): Promise<Response> {
    const headers = headersOf(call, this.effects.newIdempotencyKey);
    const credential = await this.credentials.current();
    const progress = new CallProgress(this.effects.monotonic);
    const outcome = await this.#send(call, headers, credential, progress);
    if (!isRefusedCredential(outcome)) return successOf(outcome);
    const other = await progress.withoutCounting(() => this.credentials.replacement(credential));
    return successOf(other === null ? outcome : await this.#send(call, headers, other, progress));
  }

  #send(call: Call, headers: Record<string, string>, credential: Credential, progress: CallProgress): Promise<Outcome> {
    const [path = "", query] = targetOf(call).split("?");
    const request: HttpRequest = {
      method: call.method,
      origin: this.options.baseUrl,
      path,
      query: query === undefined ? "" : `?${query}`,
      headers: { ...headers, Authorization: credential.authorization },
      body: call.body ?? null,
      repeat: "always", // calls that change something have an Idempotency-Key
      secrets: [credential.value],
    };
    return sendWithRetries(request, this.options, this.effects, progress);
  }
}

function isRefusedCredential(outcome: Outcome): outcome is Response {
  if (!(outcome instanceof Response) || outcome.status !== 401) return false;
  return textIn(problemIn(outcome), "code") === "invalid_credentials";
}
