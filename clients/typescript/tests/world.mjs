/** Clients against a scripted server, in a world whose time stands still and whose sleep passes at once. */

import { createClientContext } from "../dist/client-context.js";
import { MachPay } from "../dist/index.js";
import { DEFAULT_EFFECTS } from "../dist/wire/effects.js";

for (const name of ["MACHPAY_API_KEY", "MACHPAY_BASE_URL", "MACHPAY_AUTH_URL"]) delete process.env[name];

/** Put together here, so that no scanner takes it for one that works. */
export const SECRET = ["sk", "live", "mp1", "0123456789abcdefghijABCDEFGHIJwxyza1b2"].join("_");
export const MASKED = "sk_live_…a1b2";

export class World {
  now = Date.parse("2026-11-24T14:00:00Z");
  drawn = 1;
  slept = [];
  #passed = 0;

  get effects() {
    return {
      ...DEFAULT_EFFECTS,
      now: () => this.now,
      monotonic: () => this.#passed,
      draw: () => this.drawn,
      sleep: async (milliseconds) => {
        this.slept.push(milliseconds);
        this.#passed += milliseconds;
      },
    };
  }

  client(options) {
    return new MachPay(createClientContext(options, this.effects));
  }
}

/** Return a client with an API key for *server*. */
export function clientOf(server, options = {}, world = new World()) {
  return world.client({ apiKey: SECRET, baseUrl: server.url, ...options });
}

/** Return all that *listing* has. */
export async function drained(listing) {
  const items = [];
  for await (const item of listing) items.push(item);
  return items;
}

/** Return a JWT with these *claims*, signed by nobody. */
export function jwt(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "none" })}.${part(claims)}.${"s".repeat(20)}`;
}
