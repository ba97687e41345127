/** Makes the calls of the API, with a credential. It knows how to send, and nothing of what is sent. */

import type { Credential } from "../settings/credential.js";
import type { Options } from "../settings/options.js";
import { headersOf, targetOf, type Call } from "./call.js";
import { deliver, Spent, type Parcel } from "./delivery.js";
import type { Effects } from "./effects.js";
import { problemIn, textIn } from "./problem.js";
import { Response } from "./response.js";
import type { Outcome } from "./retry.js";
import { successOf } from "./success.js";

/** Where the credential of each call comes from. */
export interface Credentials {
  /** Return the credential to use now. Throw when there is none. */
  current(): Promise<Credential>;
  /** Return a better one than *refused*, `null` when there is none to be had. */
  renewed(refused: Credential): Promise<Credential | null>;
  /** What may be shown of it. */
  readonly shown: string | null;
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

  /** Return the answer to *call*, a success. Anything else is thrown. */
  async send(call: Call): Promise<Response> {
    const headers = headersOf(call, this.effects.newIdempotencyKey);
    const credential = await this.credentials.current();
    const spent = new Spent(this.effects.monotonic);
    const outcome = await this.#deliver(call, headers, credential, spent);
    if (!isRefusedCredential(outcome)) return successOf(outcome);
    const better = await spent.aside(() => this.credentials.renewed(credential));
    return successOf(better === null ? outcome : await this.#deliver(call, headers, better, spent));
  }

  #deliver(call: Call, headers: Record<string, string>, credential: Credential, spent: Spent): Promise<Outcome> {
    const [path = "", query] = targetOf(call).split("?");
    const parcel: Parcel = {
      method: call.method,
      origin: this.options.baseUrl,
      path,
      query: query === undefined ? "" : `?${query}`,
      headers: { ...headers, Authorization: credential.authorization },
      body: call.body ?? null,
      repeat: "always", // what changes something carries an Idempotency-Key
      secrets: [credential.value],
    };
    return deliver(parcel, this.options, this.effects, spent);
  }
}

function isRefusedCredential(outcome: Outcome): outcome is Response {
  if (!(outcome instanceof Response) || outcome.status !== 401) return false;
  return textIn(problemIn(outcome), "code") === "invalid_credentials";
}
