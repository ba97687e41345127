import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";

import { serving } from "./server.mjs";
import { clientOf, MASKED, SECRET, World } from "./world.mjs";

const TOKEN = ["token", "that", "nobody", "sees", "last"].join("-");
const EVERYTHING = { depth: Infinity, showHidden: true, getters: false };

/** Return all that a log, a debugger or an error tracker gets to see of *value*. */
function seen(value) {
  const looks = [inspect(value, EVERYTHING), inspect(value, { ...EVERYTHING, customInspect: false })];
  const stack = value instanceof Error ? [value.message, value.stack, String(value.cause)] : [];
  return [...looks, JSON.stringify(value), JSON.stringify({ ...value }), String(value), ...stack].join("\n");
}

test("a client shows its key masked", async () => {
  const client = new World().client({ apiKey: SECRET });
  const { keys, skills, account, sessions, oauth } = client;
  for (const value of [client, keys, skills, account, sessions, oauth]) assert.ok(!seen(value).includes(SECRET));
  assert.equal(JSON.stringify(client), `{"credential":"${MASKED}","baseUrl":"https://api.machpay.xyz"}`);
});

test("a client that refreshes shows neither of its tokens, nor the application's secret", () => {
  const options = {
    accessToken: `${TOKEN}-a`,
    refreshToken: `${TOKEN}-r`,
    clientId: "app",
    clientSecret: `${TOKEN}-s`,
  };
  const client = new World().client(options);
  assert.ok(!seen(client).includes(TOKEN));
  assert.deepEqual(client.toJSON(), { credential: "…st-a", baseUrl: "https://api.machpay.xyz" });
});

test("a key shows its new secret masked, and gives it to who asks", async (t) => {
  const server = await serving(t);
  server.says({ body: { id: "key_1", secret: SECRET, created_at: "2026-01-02T03:04:05Z" } });
  const key = await clientOf(server).keys.rotate("key_1");
  assert.ok(!seen(key).includes(SECRET));
  assert.ok(!seen(key.response).includes(SECRET));
  assert.match(inspect(key), /^IssuedKey \{\n {2}id: 'key_1',/);
  const shown = JSON.parse(JSON.stringify(key));
  assert.deepEqual([shown.secret, shown.createdAt], [MASKED, "2026-01-02T03:04:05.000Z"]);
  assert.equal(key.secret, SECRET);
});

test("tokens and sessions are shown masked, and given to who asks", async (t) => {
  const server = await serving(t);
  server.says({ body: { access_token: `${TOKEN}-a`, refresh_token: `${TOKEN}-r`, id_token: `${TOKEN}-i` } });
  const tokens = await clientOf(server).oauth.refreshToken({ refreshToken: "refresh-1", clientId: "app" });
  server.says({ body: { token: `${TOKEN}-t` } });
  const session = await clientOf(server).sessions.create();
  for (const value of [tokens, tokens.response, session, session.response]) assert.ok(!seen(value).includes(TOKEN));
  const shown = JSON.parse(JSON.stringify({ tokens, session }));
  const masked = [shown.tokens.accessToken, shown.tokens.refreshToken, shown.session.token];
  assert.deepEqual(masked, ["…st-a", "…st-r", "…st-t"]);
  const given = [tokens.accessToken, tokens.refreshToken, session.token];
  assert.deepEqual(given, [`${TOKEN}-a`, `${TOKEN}-r`, `${TOKEN}-t`]);
});

test("a credential that a server echoes does not get into the error", async (t) => {
  const server = await serving(t);
  server.says({ status: 400, body: { title: "Bad", detail: `Authorization: Bearer ${SECRET}` } });
  await assert.rejects(clientOf(server).whoami(), (error) => {
    assert.ok(!seen(error).includes(SECRET));
    assert.ok(!error.response.body.includes(SECRET));
    assert.equal(error.detail, `Authorization: Bearer ${MASKED}`);
    return true;
  });
});

for (const status of [400, 502]) {
  test(`nothing of what OAuth sends gets into an error of ${status} that echoes it`, async (t) => {
    const server = await serving(t);
    const [code, codeVerifier, clientSecret] = ["c", "v", "s"].map((end) => `${TOKEN}-${end}`);
    const basic = btoa(`app:${clientSecret}`);
    server.says(({ body, headers }) => {
      const echo = `${headers.authorization} ${body} ${clientSecret}`;
      return { status, body: status === 400 ? { error: "invalid_grant", error_description: echo } : echo };
    });
    const params = { code, codeVerifier, clientSecret, clientId: "app", redirectUri: "https://app.example" };
    await assert.rejects(clientOf(server).oauth.exchangeCode(params), (error) => {
      assert.ok(!`${seen(error)} ${error.response.body}`.includes(TOKEN));
      assert.ok(!`${seen(error)} ${error.response.body}`.includes(basic));
      return true;
    });
  });
}
