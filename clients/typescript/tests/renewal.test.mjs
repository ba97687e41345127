import assert from "node:assert/strict";
import { test } from "node:test";

import { AuthenticationError, InternalServerError, OAuthError } from "../dist/index.js";
import { gate, serving } from "./server.mjs";
import { jwt, World } from "./world.mjs";

const REFUSED = { status: 401, body: { code: "invalid_credentials", title: "Invalid credentials" } };

/** Answers as the gateway and the authorization server do: `accepted` is the access token that works. */
class Api {
  accepted = "access-0";
  refreshed = 0;
  lasts = 3600;

  answer = ({ path, body, headers }) => {
    if (path === "/oauth/token") return this.refresh(new URLSearchParams(body).get("refresh_token"));
    return headers.authorization === `Bearer ${this.accepted}` ? { body: { id: "user_1" } } : REFUSED;
  };

  refresh(refreshToken) {
    if (refreshToken !== `refresh-${this.refreshed}`) return { status: 400, body: { error: "invalid_grant" } };
    this.refreshed += 1;
    this.accepted = `access-${this.refreshed}`;
    const refresh_token = `refresh-${this.refreshed}`;
    return { body: { access_token: this.accepted, refresh_token, token_type: "Bearer", expires_in: this.lasts } };
  }
}

async function started(t, options = {}) {
  const [server, world, api] = [await serving(t), new World(), new Api()];
  server.says(api.answer);
  const given = { accessToken: "access-0", refreshToken: "refresh-0", clientId: "app", baseUrl: server.url };
  return { server, world, api, client: world.client({ ...given, ...options }) };
}

const paths = (server) => server.asked.map((asked) => asked.path);

test("a token that works is not refreshed", async (t) => {
  const { server, client } = await started(t);
  await client.whoami();
  assert.deepEqual(paths(server), ["/v1/whoami"]);
});

test("a token that is refused is refreshed once, and the call is made again with its idempotency key", async (t) => {
  const saved = [];
  const { server, api, client } = await started(t, { onTokens: (tokens) => void saved.push(tokens) });
  api.accepted = "another";
  await client.keys.endGrace("user_1");
  assert.deepEqual(paths(server), ["/v1/keys/user_1/end-grace", "/oauth/token", "/v1/keys/user_1/end-grace"]);
  const [before, , after] = server.asked.map((asked) => asked.headers);
  assert.equal(after.authorization, "Bearer access-1");
  assert.equal(after["idempotency-key"], before["idempotency-key"]);
  assert.deepEqual(
    saved.map((tokens) => [tokens.accessToken, tokens.refreshToken]),
    [["access-1", "refresh-1"]],
  );
  await client.whoami();
  assert.equal(server.asked.length, 4);
});

test("a new token that is refused, too, is not refreshed again for the same call", async (t) => {
  const { server, client } = await started(t);
  const api = new Api();
  server.says((asked) => (asked.path === "/oauth/token" ? api.answer(asked) : REFUSED));
  await assert.rejects(client.whoami(), AuthenticationError);
  assert.deepEqual(paths(server), ["/v1/whoami", "/oauth/token", "/v1/whoami"]);
});

for (const [what, answer] of [
  ["a 401 for another reason", { status: 401, body: { code: "missing_credentials" } }],
  ["a 403", { status: 403, body: { code: "insufficient_scope" } }],
]) {
  test(`${what} is no reason to refresh`, async (t) => {
    const { server, client } = await started(t);
    server.says(answer);
    await assert.rejects(client.whoami(), { status: answer.status });
    assert.deepEqual(paths(server), ["/v1/whoami"]);
  });
}

test("a client without a refresh token tells that its token is refused", async (t) => {
  const { server, world } = await started(t);
  const client = world.client({
    accessToken: "access-old",
    refreshToken: undefined,
    clientId: "app",
    baseUrl: server.url,
  });
  await assert.rejects(client.whoami(), AuthenticationError);
  assert.deepEqual(paths(server), ["/v1/whoami"]);
});

test("a JWT is refreshed half a minute before it expires", async (t) => {
  const exp = new World().now / 1000 + 100;
  const accessToken = jwt({ exp });
  const { server, world, api, client } = await started(t, { accessToken });
  api.accepted = accessToken;
  world.now += 69_000;
  await client.whoami();
  world.now += 1_000;
  await client.whoami();
  assert.deepEqual(paths(server), ["/v1/whoami", "/oauth/token", "/v1/whoami"]);
});

test("a token that was refreshed is refreshed again half a minute before its time is over", async (t) => {
  const { server, world, api, client } = await started(t);
  api.accepted = "another";
  await client.whoami();
  world.now += 3_569_000;
  await client.whoami();
  assert.equal(api.refreshed, 1);
  world.now += 1_000;
  await client.whoami();
  assert.equal(api.refreshed, 2);
  assert.deepEqual(paths(server).slice(-2), ["/oauth/token", "/v1/whoami"]);
});

test("a token that lasts for seconds is used for half of them", async (t) => {
  const { world, api, client } = await started(t);
  Object.assign(api, { accepted: "another", lasts: 10 });
  await client.whoami();
  world.now += 4_999;
  await client.whoami();
  assert.equal(api.refreshed, 1);
  world.now += 1;
  await client.whoami();
  assert.equal(api.refreshed, 2);
});

test("a clock that is wrong does not refresh at each call", async (t) => {
  const { server, world, api, client } = await started(t, { accessToken: jwt({ exp: 1 }) });
  api.refresh = () => ({ body: { access_token: (api.accepted = jwt({ exp: world.now / 1000 - 60 })) } });
  for (let call = 0; call < 3; call += 1) await client.whoami();
  assert.deepEqual(paths(server), ["/oauth/token", "/v1/whoami", "/v1/whoami", "/v1/whoami"]);
});

for (const accessToken of ["opaque", "a.b.c", `a.${btoa("7")}.c`, jwt({ exp: "soon" }), jwt({}), "a.b"]) {
  test(`a token that does not say when it ends is used until it is refused: ${accessToken.slice(0, 40)}`, async (t) => {
    const { server, api, client } = await started(t, { accessToken });
    api.accepted = accessToken;
    await client.whoami();
    assert.deepEqual(paths(server), ["/v1/whoami"]);
  });
}

test("a refresh token alone is enough", async (t) => {
  const { server, world } = await started(t);
  const client = world.client({ refreshToken: "refresh-0", clientId: "app", baseUrl: server.url });
  await client.whoami();
  assert.deepEqual(paths(server), ["/oauth/token", "/v1/whoami"]);
  assert.deepEqual(client.toJSON(), { credential: "…", baseUrl: server.url });
});

test("calls at the same time share one refresh, those of clients made by withOptions, too", async (t) => {
  const { server, api, client } = await started(t, { accessToken: jwt({ exp: 1 }) });
  const [asked, answered] = [gate(), gate()];
  server.says(async (request) => {
    if (request.path === "/oauth/token") {
      asked.open();
      await answered.opened;
    }
    return api.answer(request);
  });
  const other = client.withOptions({ maxRetries: 0 });
  const calls = [client.whoami(), other.whoami(), client.account.retrieve(), other.account.retrieve()];
  await asked.opened;
  calls.push(client.whoami()); // begun while the refresh is on its way
  answered.open();
  await Promise.all(calls);
  assert.equal(paths(server).filter((path) => path === "/oauth/token").length, 1);
  assert.equal(server.asked.length, 1 + calls.length);
});

test("calls that are refused at the same time share one refresh", async (t) => {
  const { server, api, client } = await started(t);
  api.accepted = "another";
  const all = gate();
  server.says(async (request) => {
    const answer = api.answer(request);
    if (server.asked.length === 3) all.open();
    await all.opened; // each is refused once all three are there
    return answer;
  });
  await Promise.all([client.whoami(), client.whoami(), client.whoami()]);
  assert.equal(api.refreshed, 1);
  assert.equal(server.asked.length, 7);
});

test("a call that is refused after another one has refreshed takes what that brought", async (t) => {
  const { server, api, client } = await started(t);
  api.accepted = "another";
  const late = gate();
  server.says(
    async (request) => {
      const answer = api.answer(request);
      await late.opened;
      return answer;
    },
    (request) => api.answer(request),
  );
  const first = client.whoami();
  while (server.asked.length === 0) await new Promise(setImmediate);
  await client.account.retrieve();
  late.open();
  await first;
  assert.equal(api.refreshed, 1);
});

test("new tokens are stored before they are used", async (t) => {
  const stored = gate();
  const begun = gate();
  const onTokens = async () => {
    begun.open();
    await stored.opened;
  };
  const { server, client } = await started(t, { accessToken: jwt({ exp: 1 }), onTokens });
  const call = client.whoami();
  await begun.opened;
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  assert.deepEqual(paths(server), ["/oauth/token"]);
  stored.open();
  await call;
  assert.deepEqual(paths(server), ["/oauth/token", "/v1/whoami"]);
});

test("tokens that could not be stored are stored at the next call, without another refresh", async (t) => {
  const saved = [];
  let broken = true;
  const onTokens = async (tokens) => {
    if (broken) throw new Error("the database is away");
    saved.push(tokens.refreshToken);
  };
  const { server, api, client } = await started(t, { accessToken: jwt({ exp: 1 }), onTokens });
  await assert.rejects(client.whoami(), { message: "the database is away" });
  assert.deepEqual(paths(server), ["/oauth/token"]);
  broken = false;
  await client.whoami();
  assert.deepEqual([api.refreshed, saved], [1, ["refresh-1"]]);
  await client.whoami();
  assert.deepEqual(saved, ["refresh-1"]);
});

test("a login that is over is told at each call, and not asked about again", async (t) => {
  const { server, api, client } = await started(t, { refreshToken: "refresh-of-old" });
  api.accepted = "another";
  const over = (error) => error instanceof OAuthError && error.error === "invalid_grant";
  await assert.rejects(client.whoami(), over);
  assert.deepEqual(paths(server), ["/v1/whoami", "/oauth/token"]);
  await assert.rejects(client.whoami(), over);
  await assert.rejects(client.withOptions({ maxRetries: 0 }).whoami(), over);
  assert.equal(paths(server).filter((path) => path === "/oauth/token").length, 1);
});

test("an authorization server that is away for a while costs nobody the login", async (t) => {
  const { server, api, client } = await started(t, { accessToken: jwt({ exp: 1 }), maxRetries: 1 });
  server.says({ status: 503 }, { status: 503 }, api.answer);
  await assert.rejects(client.whoami(), InternalServerError);
  await client.whoami();
  assert.deepEqual(paths(server), [...Array(3).fill("/oauth/token"), "/v1/whoami"]);
});

test("a lost answer to a refresh is asked for again, and the time is not the call's", async (t) => {
  const { server, world, api, client } = await started(t, { timeout: 10_000, maxRetries: 2 });
  api.accepted = "another";
  const slow = { headers: { "retry-after": "20" } };
  server.says(REFUSED, { ...slow, status: 503 }, api.answer, { ...slow, status: 503 }, api.answer);
  await client.whoami();
  assert.deepEqual(world.slept, [20_000, 20_000]); // together they would be beyond the 30 s of one call
});

test("the application's secret goes along with a refresh", async (t) => {
  const { server, client } = await started(t, { accessToken: jwt({ exp: 1 }), clientSecret: "hidden-away" });
  await client.whoami();
  assert.equal(server.asked[0].headers.authorization, `Basic ${btoa("app:hidden-away")}`);
});
