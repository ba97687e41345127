import assert from "node:assert/strict";
import { createHash, createPublicKey, verify } from "node:crypto";
import { test } from "node:test";
import { inspect } from "node:util";

import { APIConnectionError, APITimeoutError, DPoPKey, MachPay, OAuthError } from "../dist/index.js";
import { serving } from "./server.mjs";
import { SECRET, World } from "./world.mjs";

const GIVEN = { access_token: "access-1", refresh_token: "refresh-1", token_type: "Bearer", expires_in: 3600 };
const EXCHANGE = { code: "code-of-one-use", redirectUri: "https://app.example/callback", clientId: "app" };
const REFRESH = { refreshToken: "refresh-0", clientId: "app" };

/** Return a client for OAuth alone, as the guide's `machpay` is. */
function clientOf(server, options = {}, world = new World()) {
  return world.client({ authUrl: server.url, ...options });
}

function formOf({ body }) {
  return Object.fromEntries(new URLSearchParams(body));
}

test("the authorization URL asks for a code with a random state and PKCE", async () => {
  const client = new MachPay({ authUrl: "https://auth.example/base" });
  const params = { clientId: "app 1", redirectUri: EXCHANGE.redirectUri, scopes: ["skills:execute", "account:read"] };
  const { url, state, codeVerifier } = await client.oauth.authorizationUrl(params);
  const { origin, pathname, searchParams } = new URL(url);
  assert.equal(origin + pathname, "https://auth.example/base/oauth/authorize");
  assert.match(codeVerifier, /^[A-Za-z0-9_-]{43}$/);
  assert.match(state, /^[A-Za-z0-9_-]{43}$/);
  assert.deepEqual(Object.fromEntries(searchParams), {
    response_type: "code",
    client_id: "app 1",
    redirect_uri: EXCHANGE.redirectUri,
    scope: "skills:execute account:read",
    state,
    code_challenge: createHash("sha256").update(codeVerifier).digest("base64url"),
    code_challenge_method: "S256",
  });
  assert.doesNotMatch(url, /[+ ]/);
  const again = await client.oauth.authorizationUrl(params);
  assert.equal(new Set([state, again.state, codeVerifier, again.codeVerifier]).size, 4);
});

test("state, scope and resource of one's own are taken as they are", async () => {
  const params = { clientId: "app", redirectUri: "https://a", scope: "a b", state: "mine", resource: "https://api" };
  const { url, state } = await new MachPay().oauth.authorizationUrl(params);
  const { searchParams } = new URL(url);
  assert.equal(state, "mine");
  assert.deepEqual(
    ["scope", "state", "resource"].map((name) => searchParams.get(name)),
    ["a b", "mine", "https://api"],
  );
});

test("a code is exchanged as a form, and an application with a secret says who it is by HTTP Basic", async (t) => {
  const server = await serving(t);
  server.says({ body: { ...GIVEN, scope: "a b", id: 7 } });
  const tokens = await clientOf(server).oauth.exchangeCode({ ...EXCHANGE, clientSecret: "hidden-away" });
  const { method, path, headers } = server.last;
  assert.deepEqual([method, path], ["POST", "/oauth/token"]);
  assert.equal(headers["content-type"], "application/x-www-form-urlencoded");
  assert.equal(headers.authorization, `Basic ${Buffer.from("app:hidden-away").toString("base64")}`);
  const { code, redirectUri } = EXCHANGE;
  assert.deepEqual(formOf(server.last), { grant_type: "authorization_code", code, redirect_uri: redirectUri });
  assert.deepEqual([tokens.accessToken, tokens.refreshToken, tokens.tokenType], ["access-1", "refresh-1", "Bearer"]);
  assert.deepEqual([tokens.expiresIn, tokens.scope, tokens.scopes], [3600, "a b", ["a", "b"]]);
  assert.deepEqual([tokens.expiresAt, tokens.extra], [new Date("2026-11-24T15:00:00Z"), { id: 7 }]);
  assert.deepEqual([tokens.requestId, tokens.response.status], ["req-1", 200]);
});

test("an application without a secret says who it is in the form", async (t) => {
  const server = await serving(t);
  server.says({ body: GIVEN });
  await clientOf(server).oauth.exchangeCode({ ...EXCHANGE, codeVerifier: "v".repeat(43) });
  assert.equal("authorization" in server.last.headers, false);
  const { client_id, code_verifier } = formOf(server.last);
  assert.deepEqual([client_id, code_verifier], ["app", "v".repeat(43)]);
});

test("id and secret are encoded as in a form before they are encoded as a password", async (t) => {
  const server = await serving(t);
  server.says({ body: GIVEN });
  await clientOf(server).oauth.refreshToken({ ...REFRESH, clientId: "a:b", clientSecret: "ü +/" });
  const basic = Buffer.from(server.last.headers.authorization.slice("Basic ".length), "base64").toString();
  assert.equal(basic, "a%3Ab:%C3%BC+%2B%2F");
});

test("OAuth sends no API key", async (t) => {
  const server = await serving(t);
  server.says({ body: GIVEN });
  await clientOf(server, { apiKey: "the-key-of-the-api" }).oauth.refreshToken(REFRESH);
  assert.equal("authorization" in server.last.headers, false);
  assert.doesNotMatch(server.last.body, /the-key-of-the-api/);
});

test("a refresh brings the next refresh token, or leaves the present one", async (t) => {
  const server = await serving(t);
  server.says({ body: GIVEN }, { body: { access_token: "access-2" } });
  const { oauth } = clientOf(server);
  const first = await oauth.refreshToken({ ...REFRESH, scopes: ["a", "b"] });
  assert.deepEqual(formOf(server.last), {
    grant_type: "refresh_token",
    refresh_token: "refresh-0",
    scope: "a b",
    client_id: "app",
  });
  const second = await oauth.refreshToken({ ...REFRESH, refreshToken: first.refreshToken });
  assert.deepEqual([first.refreshToken, second.refreshToken], ["refresh-1", "refresh-1"]);
  assert.deepEqual([second.expiresIn, second.expiresAt, second.scope, second.scopes], [null, null, null, []]);
});

test("a token is revoked, and an empty answer is enough", async (t) => {
  const server = await serving(t);
  server.says({ body: "" });
  assert.equal(await clientOf(server).oauth.revoke({ token: "refresh-1", clientId: "app" }), undefined);
  assert.equal(server.last.path, "/oauth/revoke");
  assert.deepEqual(formOf(server.last), { token: "refresh-1", client_id: "app" });
});

test("what the authorization server refuses is an OAuthError with its reason", async (t) => {
  const server = await serving(t);
  server.says({ status: 400, body: { error: "invalid_grant", error_description: "The code is used up" } });
  await assert.rejects(clientOf(server).oauth.exchangeCode(EXCHANGE), (error) => {
    assert.ok(error instanceof OAuthError);
    assert.deepEqual([error.error, error.errorDescription], ["invalid_grant", "The code is used up"]);
    assert.deepEqual([error.status, error.requestId], [400, "req-1"]);
    assert.equal(error.message, "invalid_grant: The code is used up. (request req-1)");
    return true;
  });
});

for (const [status, body, name] of [
  [400, { title: "Bad" }, "BadRequestError"],
  [404, "<html>", "NotFoundError"],
  [429, { title: "Slow down" }, "RateLimitError"],
  [500, { error: ["no string"] }, "InternalServerError"],
]) {
  test(`what is no error of OAuth is one of the API: ${name}`, async (t) => {
    const server = await serving(t);
    server.says({ status, body });
    await assert.rejects(clientOf(server).oauth.exchangeCode(EXCHANGE), { name, status });
  });
}

test("tokens without an access token are none", async (t) => {
  const server = await serving(t);
  server.says({ body: { refresh_token: "refresh-1" } });
  const error = { name: "InvalidResponseError", message: /access_token is missing/ };
  await assert.rejects(clientOf(server).oauth.exchangeCode(EXCHANGE), error);
});

for (const [what, answer, kind] of [
  ["answered with 503", { status: 503, headers: { "retry-after": "1" } }, Error],
  ["answered with 429", { status: 429, headers: { "retry-after": "1" } }, Error],
  ["broken off", { resets: true }, APIConnectionError],
  ["cut short", { cut: true }, APIConnectionError],
  ["not answered", { silent: true }, APITimeoutError],
]) {
  test(`a code is sent once when that is ${what}, and a refresh token again`, async (t) => {
    const [server, world] = [await serving(t), new World()];
    const { oauth } = clientOf(server, { timeout: answer.silent ? 100 : 5_000 }, world);
    server.says(answer);
    await assert.rejects(oauth.exchangeCode(EXCHANGE), kind);
    assert.deepEqual([server.asked.length, world.slept], [1, []]);
    if (answer.silent) return; // to wait in vain once is enough
    server.says(answer, { body: GIVEN });
    assert.equal((await oauth.refreshToken(REFRESH)).accessToken, "access-1");
    assert.equal(server.asked.length, 3);
  });
}

for (const [what, cause] of [
  ["is not there", { code: "ECONNREFUSED" }],
  ["is not found", { code: "ENOTFOUND" }],
  ["takes no connection in time", { code: "UND_ERR_CONNECT_TIMEOUT" }],
]) {
  test(`a code is sent again when the server ${what}: it has not left`, async (t) => {
    const [server, world] = [await serving(t), new World()];
    server.says({ body: GIVEN });
    let attempts = 0;
    const fetched = (url, init) => {
      attempts += 1;
      if (attempts > 1) return fetch(url, init);
      throw new TypeError("fetch failed", { cause: Object.assign(new Error("no way there"), cause) });
    };
    await clientOf(server, { fetch: fetched }, world).oauth.exchangeCode(EXCHANGE);
    assert.deepEqual([attempts, server.asked.length, world.slept], [2, 1, [500]]);
  });
}

for (const [what, call, message] of [
  ["no code", (o) => o.exchangeCode({ ...EXCHANGE, code: undefined }), "code is undefined, and has to be a string."],
  ["two codes", (o) => o.exchangeCode({ ...EXCHANGE, code: ["a", "b"] }), "code is an array, and has to be a string."],
  ["an empty code", (o) => o.exchangeCode({ ...EXCHANGE, code: "" }), "code is empty, and has to be a string."],
  ["an empty secret", (o) => o.exchangeCode({ ...EXCHANGE, clientSecret: "" }), /^clientSecret is empty/],
  ["no application", (o) => o.exchangeCode({ ...EXCHANGE, clientId: undefined }), /^clientId is undefined/],
  ["no redirect URI", (o) => o.exchangeCode({ ...EXCHANGE, redirectUri: null }), /^redirectUri is null/],
  ["the wire's names", (o) => o.exchangeCode({ ...EXCHANGE, client_secret: "s" }), /takes no "client_secret"/],
  ["no refresh token", (o) => o.refreshToken({ clientId: "app" }), /^refreshToken is undefined/],
  ["two scopes", (o) => o.refreshToken({ ...REFRESH, scope: "a", scopes: ["a"] }), /^Both scope and scopes/],
  ["no token", (o) => o.revoke({ clientId: "app" }), /^token is undefined/],
  ["an empty state", (o) => o.authorizationUrl({ clientId: "a", redirectUri: "b", state: "" }), /^state is empty/],
]) {
  test(`${what} is refused before it is sent`, async (t) => {
    const server = await serving(t);
    await assert.rejects(call(clientOf(server).oauth), { name: "InvalidArgumentError", message });
    assert.equal(server.asked.length, 0);
  });
}

test("PKCE where there is no SHA-256 says where there is", async (t) => {
  const { subtle } = crypto;
  t.after(() => Object.defineProperty(crypto, "subtle", { value: subtle, configurable: true }));
  Object.defineProperty(crypto, "subtle", { value: undefined, configurable: true });
  const error = { name: "ConfigurationError", message: /https:\/\/ pages and on localhost/ };
  await assert.rejects(new MachPay().oauth.authorizationUrl({ clientId: "a", redirectUri: "b" }), error);
});

const { oauth } = new MachPay();
const ISSUER = "https://auth.example";
const QUERY = `code=code-1&state=state-1&iss=${encodeURIComponent(ISSUER)}`;

for (const callback of [
  `https://app.example/callback?${QUERY}#fragment`,
  `/callback?${QUERY}`,
  `?${QUERY}`,
  QUERY,
  new URL(`https://app.example/callback?${QUERY}`),
  new URLSearchParams(QUERY),
  { code: "code-1", state: "state-1", iss: ISSUER },
]) {
  test(`a callback's code is found in ${callback.constructor.name} ${String(callback).slice(0, 24)}`, () => {
    assert.equal(oauth.checkCallback(callback, { state: "state-1" }), "code-1");
    assert.equal(oauth.checkCallback(callback, { state: "state-1", issuer: ISSUER }), "code-1");
  });
}

for (const [what, callback, error, description] of [
  ["of another session", "?code=c&state=state-2", "state_mismatch", /begin again/],
  ["without a state", "?code=c", "state_mismatch", /begin again/],
  ["with two states", "?code=c&state=state-1&state=state-1", "state_mismatch", /begin again/],
  ["with a list of states", { code: "c", state: ["state-1"] }, "state_mismatch", /begin again/],
  ["of another server", "?code=c&state=state-1&iss=https://evil.example", "issuer_mismatch", /auth\.example/],
  ["of nobody", "?code=c&state=state-1", "issuer_mismatch", /auth\.example/],
  ["with two codes", `?${QUERY}&code=code-2`, "missing_code", /neither a code nor an error/],
  ["with nothing", `?${QUERY.replace("code-1", "")}`, "missing_code", /neither a code nor an error/],
  ["with an error", `?${QUERY}&error=access_denied&error_description=No+thanks`, "access_denied", /^No thanks$/],
  ["with an error of another session", "?error=access_denied&state=state-2", "state_mismatch", /begin again/],
]) {
  test(`a callback ${what} is refused`, () => {
    assert.throws(
      () => oauth.checkCallback(callback, { state: "state-1", issuer: ISSUER }),
      (thrown) => {
        assert.ok(thrown instanceof OAuthError);
        assert.deepEqual([thrown.error, thrown.status, thrown.response], [error, null, null]);
        assert.match(thrown.errorDescription, description);
        return true;
      },
    );
  });
}

for (const state of [undefined, null, ""]) {
  test(`a session without a state matches no callback without one: ${state}`, () => {
    const error = { name: "InvalidArgumentError", message: /^state is/ };
    assert.throws(() => oauth.checkCallback({ code: "c", state }, { state }), error);
    assert.throws(() => oauth.checkCallback("?code=c&state=", { state }), error);
  });
}

for (const callback of [undefined, null, 7, true]) {
  test(`a callback that is ${callback} is an error that says so`, async () => {
    const check = () => new World().client({}).oauth.checkCallback(callback, { state: "s" });
    assert.throws(check, { name: "InvalidArgumentError", message: /^The callback is .* its URL or its parameters\.$/ });
  });
}

test("a user can be asked again", async () => {
  const params = { clientId: "c", redirectUri: "https://a.example", prompt: "login" };
  const { url } = await new World().client({}).oauth.authorizationUrl(params);
  assert.equal(new URL(url).searchParams.get("prompt"), "login");
});

test("an application gets a token for itself", async (t) => {
  const server = await serving(t);
  server.says({ body: { access_token: "access-1", expires_in: 60, scope: "a b" } });
  const params = { clientId: "app", clientSecret: "s:1", scopes: ["a", "b"], resource: "https://api.example" };
  const tokens = await clientOf(server).oauth.clientCredentials(params);
  assert.deepEqual([tokens.accessToken, tokens.refreshToken, tokens.scopes], ["access-1", null, ["a", "b"]]);
  const form = { grant_type: "client_credentials", scope: "a b", resource: "https://api.example" };
  assert.deepEqual(Object.fromEntries(new URLSearchParams(server.last.body)), form);
  assert.equal(server.last.headers.authorization, `Basic ${btoa("app:s%3A1")}`);
  await assert.rejects(clientOf(server).oauth.clientCredentials({ clientId: "app" }), { name: "InvalidArgumentError" });
});

test("an application asks about its tokens", async (t) => {
  const server = await serving(t);
  const said = { active: true, scope: "a b", client_id: "app", sub: "u", aud: "x", exp: 1_800_000_000, jti: "j" };
  server.says({ body: said }, { body: { active: false } });
  const params = { token: "t", clientId: "app", clientSecret: "s" };
  const token = await clientOf(server).oauth.introspect(params);
  assert.deepEqual([token.active, token.scopes, token.clientId, token.subject], [true, ["a", "b"], "app", "u"]);
  assert.deepEqual([token.audience, token.expiresAt.getTime(), token.extra], [["x"], 1_800_000_000_000, { jti: "j" }]);
  assert.deepEqual([server.last.path, server.last.body], ["/oauth/introspect", "token=t"]);
  assert.equal((await clientOf(server).oauth.introspect(params)).active, false);
});

test("each request proves that the client has the key", async (t) => {
  const [server, world] = [await serving(t), new World()];
  const key = await DPoPKey.generate({ extractable: true });
  server.says({ body: { access_token: "access-1", token_type: "DPoP" } }, { status: 503 }, {});
  const client = world.client({ refreshToken: "refresh-0", clientId: "app", dpopKey: key, baseUrl: server.url });
  await client.whoami();
  const proofs = await Promise.all(server.asked.map(({ headers }) => verified(headers.dpop)));
  assert.deepEqual(
    proofs.map(({ htm, htu, ath, iat }) => [htm, htu, ath, iat]),
    [
      ["POST", "/oauth/token", undefined],
      ["GET", "/v1/whoami", hashOf("access-1")],
      ["GET", "/v1/whoami", hashOf("access-1")],
    ].map(([htm, path, ath]) => [htm, `${server.url}${path}`, ath, Math.floor(world.now / 1000)]),
  );
  assert.equal(new Set(proofs.map(({ jti }) => jti)).size, 3);
  assert.equal(server.last.headers.authorization, "DPoP access-1");
  const again = await DPoPKey.fromJwk(await key.toJwk());
  assert.deepEqual(
    [again.thumbprint, (await DPoPKey.fromKeyPair(key.keyPair)).thumbprint],
    [key.thumbprint, key.thumbprint],
  );
  assert.equal(inspect(key), `DPoPKey { thumbprint: '${key.thumbprint}' }`);
  assert.equal((await DPoPKey.generate()).keyPair.privateKey.extractable, false);
  server.says({ body: { access_token: "access-2", token_type: "Bearer" } });
  const params = { refreshToken: "r", clientId: "app", dpopKey: key };
  await assert.rejects(client.oauth.refreshToken(params), /token_type: not DPoP/);
  assert.throws(() => world.client({ apiKey: SECRET, dpopKey: key }), /only access tokens are bound/);
  assert.throws(() => world.client({ accessToken: "t", dpopKey: {} }), /has to be a DPoPKey/);
  await assert.rejects(DPoPKey.fromJwk({ kty: "RSA" }), { name: "ConfigurationError" });
});

function hashOf(text) {
  return createHash("sha256").update(text).digest("base64url");
}

/** Return the claims of a proof, whose signature is checked. */
async function verified(proof) {
  const [header, claims, signature] = proof.split(".");
  const { jwk, alg, typ } = JSON.parse(Buffer.from(header, "base64url"));
  assert.deepEqual([alg, typ, "d" in jwk], ["ES256", "dpop+jwt", false]);
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const signed = { key, dsaEncoding: "ieee-p1363" };
  assert.ok(verify("sha256", Buffer.from(`${header}.${claims}`), signed, Buffer.from(signature, "base64url")));
  return JSON.parse(Buffer.from(claims, "base64url"));
}
