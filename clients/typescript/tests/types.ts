/** What the types promise. Compiled and never run: a line after `@ts-expect-error` must not compile. */

import {
  APIStatusError,
  DPoPKey,
  MachPay,
  OAuthError,
  RateLimitError,
  type ClientOptions,
  type Grant,
  type IssuedKey,
  type Key,
  type Page,
  type Tokens,
} from "@machpay/sdk";

declare const client: MachPay;
declare const query: Record<string, string | string[] | undefined>;
declare const session: { accessToken?: string; refreshToken?: string };

export async function keys(): Promise<void> {
  const created: IssuedKey = await client.keys.create({ name: "a", scopes: ["skills:list"] as const });
  const secret: string = created.secret;
  const page: Page<Key> = await client.keys.list({ limit: 2, status: "active" });
  for await (const key of client.keys.list()) {
    const expiry: Date | null = key.expiresAt;
    // @ts-expect-error - only a key that was just created or rotated has one
    key.secret;
    // @ts-expect-error - a result is not to be changed
    key.name = `${expiry} ${secret}`;
  }
  await client.keys.update(page.data[0]?.id ?? "", { expiresAt: null, ifMatch: created.etag });
  // @ts-expect-error - it would silently be left out
  await client.keys.create({ name: "a", scopes: [], allowed_ips: [] });
  // @ts-expect-error - one scope is no list of scopes
  await client.keys.update("key_1", { scopes: undefined, name: null });
}

export async function oauth(): Promise<Tokens> {
  const { url, state, codeVerifier } = await client.oauth.authorizationUrl({ clientId: "a", redirectUri: "b" });
  const code: string = client.oauth.checkCallback(query, { state, issuer: url });
  await client.oauth.exchangeCode({ code: query["code"], redirectUri: "b", clientId: "a", codeVerifier });
  // @ts-expect-error - without the code there is nothing to exchange
  await client.oauth.exchangeCode({ redirectUri: "b", clientId: "a" });
  return client.oauth.refreshToken({ refreshToken: code, clientId: "a", clientSecret: "b" });
}

export async function requests(signal: AbortSignal): Promise<Page<Grant>> {
  await client.keys.retrieve("key_1", { signal, timeout: 1_000, headers: { a: "b" } });
  const response = await client.post("/v1/orders", { json: { a: 1 }, query: { b: [1, "c"] }, idempotencyKey: "d" });
  const { status }: { status: number } = response;
  const { order }: { order: number } = response.json<{ order: number }>();
  // @ts-expect-error - what the server sends is not known
  response.json().a;
  const stream = await client.stream("GET", `/v1/events/${status}/${order}`);
  for await (const { data, id } of stream.iterEvents()) void `${data}${id satisfies string | null}`;
  const issued: string | null = (await client.oauthClients.create({ name: "a", scopes: [] })).clientSecret;
  for await (const { actor, before } of client.auditLog.list({ limit: 1 })) void [actor.kind, before["name"], issued];
  const me = await client.whoami();
  void [me.limits?.requests, me.policies[0]?.resetSeconds, (await client.account.retrieve()).balance?.toFixed(2)];
  // @ts-expect-error - a listing of keys takes no idempotency key
  client.keys.list({ idempotencyKey: "a" });
  return client.grants.list({ clientId: "a" });
}

export async function stored(): Promise<MachPay> {
  const dpopKey = await DPoPKey.generate();
  const loadTokens = async () => ({ accessToken: "a", refreshToken: "b" });
  // @ts-expect-error - there are no tokens without a refresh token
  new MachPay({ loadTokens: () => ({ accessToken: "a" }), onTokens() {}, clientId: "c" });
  return new MachPay({ loadTokens, onTokens() {}, clientId: "c", dpopKey, logger: { debug: () => undefined } });
}

export function options(): ClientOptions {
  const { accessToken, refreshToken } = session;
  new MachPay({ accessToken, refreshToken, clientId: "a", onTokens: async (tokens) => void tokens.refreshToken });
  new MachPay({ fetch: (url, init) => fetch(url, init), timeout: 5_000 }).withOptions({ maxRetries: 0 });
  // @ts-expect-error - milliseconds are a number
  return { timeout: "5s" };
}

export function errors(error: unknown): string | number | null {
  if (error instanceof RateLimitError) return error.retryAfter;
  if (error instanceof APIStatusError) return error.code;
  return error instanceof OAuthError ? error.errorDescription : null;
}
