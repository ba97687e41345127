import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

import { APITimeoutError, OAuthError } from "../dist/index.js";
import { serving } from "./server.mjs";
import { World } from "./world.mjs";

const REFUSED = { status: 401, body: { code: "invalid_credentials" } };

/** Answers as the gateway does: a refresh token works once. */
class Api {
  accepted = "access-0";
  refreshed = 0;

  answer = ({ path, body, headers }) => {
    if (path !== "/oauth/token")
      return headers.authorization === `Bearer ${this.accepted}` ? { body: { id: "me" } } : REFUSED;
    const given = new URLSearchParams(body).get("refresh_token");
    if (given !== `refresh-${this.refreshed}`) return { status: 400, body: { error: "invalid_grant" } };
    this.refreshed += 1;
    this.accepted = `access-${this.refreshed}`;
    return { body: { access_token: this.accepted, refresh_token: `refresh-${this.refreshed}`, expires_in: 3600 } };
  };
}

class Store {
  tokens = null;
  loads = 0;
  onTokens = ({ accessToken, refreshToken }) => void (this.tokens = { accessToken, refreshToken });
  loadTokens = async () => ((this.loads += 1), this.tokens);
  functions = { onTokens: this.onTokens, loadTokens: this.loadTokens };
}

async function started(t) {
  const [server, world, api] = [await serving(t), new World(), new Api()];
  server.says(api.answer);
  const base = { clientId: "app", baseUrl: server.url };
  const client = (options) => world.client({ ...base, accessToken: "access-0", refreshToken: "refresh-0", ...options });
  return { server, world, api, client, base };
}

const tokenRequests = (server) => server.asked.filter(({ path }) => path === "/oauth/token").length;

test("clients that share a store use a refresh token once", async (t) => {
  const { server, api, client } = await started(t);
  const store = new Store();
  const [first, second] = [client(store.functions), client(store.functions)];
  api.accepted = "another";
  await first.whoami();
  await second.whoami(); // with the refresh token that the first one has used
  assert.deepEqual([tokenRequests(server), store.loads], [1, 2]);
  api.accepted = "another";
  await second.whoami();
  await first.whoami();
  assert.equal(tokenRequests(server), 2);
});

test("a client begins with what is stored, and refreshes what expires soon", async (t) => {
  const { server, world, base } = await started(t);
  const stored = { accessToken: "access-0", refreshToken: "refresh-0", expiresAt: null };
  const options = { ...base, onTokens() {}, loadTokens: () => stored };
  await world.client(options).whoami();
  assert.equal(tokenRequests(server), 0);
  stored.expiresAt = new Date(world.now - 1);
  await world.client(options).whoami();
  assert.equal(tokenRequests(server), 1);
  stored.expiresAt = new Date(world.now + 3_600_000).toJSON();
  [stored.accessToken, stored.refreshToken] = ["access-1", "refresh-1"];
  await world.client(options).whoami();
  assert.equal(tokenRequests(server), 1);
});

test("a refresh token that was used meanwhile is replaced by the stored one", async (t) => {
  const { api, client } = await started(t);
  const loads = [null, { accessToken: "access-1", refreshToken: "refresh-1" }];
  api.refreshed = 1; // by another process, between our look at the store and our request
  api.accepted = "access-1";
  const me = await client({ onTokens() {}, loadTokens: () => loads.shift() }).whoami();
  assert.deepEqual([me.id, loads], ["me", []]);
});

test("a new sign-in revives a client", async (t) => {
  const { api, client } = await started(t);
  const store = new Store();
  const user = client(store.functions);
  [api.refreshed, api.accepted] = [7, "access-7"];
  for (let call = 0; call < 2; call += 1) await assert.rejects(user.whoami(), OAuthError);
  store.tokens = { accessToken: "access-7", refreshToken: "refresh-7" };
  assert.equal((await user.whoami()).id, "me");
});

test("tokens that could not be stored are not replaced by older ones", async (t) => {
  const { server, api, client } = await started(t);
  const loads = [];
  let isFull = true;
  const onTokens = () => {
    if (isFull) throw new Error("the disk is full");
  };
  const user = client({
    onTokens,
    loadTokens: () => (loads.push(1), { accessToken: "access-0", refreshToken: "refresh-0" }),
  });
  api.accepted = "another";
  await assert.rejects(user.whoami(), /the disk is full/);
  isFull = false;
  await user.whoami();
  assert.deepEqual([tokenRequests(server), loads.length], [1, 1]);
});

for (const [stored, message] of [
  [null, /has to sign in/],
  [{ accessToken: "a" }, /no refreshToken/],
  [{ accessToken: "a\n", refreshToken: "r" }, /white space/],
  [{ refreshToken: "r", expiresAt: 17 }, /has to be a Date/],
  [{ refreshToken: "r", expiresAt: "soon" }, /has to be a Date/],
  ["tokens", /of type string/],
]) {
  test(`what cannot be used of a store is an error: ${JSON.stringify(stored)}`, async (t) => {
    const { world, base } = await started(t);
    const client = world.client({ ...base, onTokens() {}, loadTokens: () => stored });
    await assert.rejects(client.whoami(), { name: "ConfigurationError", message });
  });
}

test("reading without storing is refused, and so is a key beside it", () => {
  const world = new World();
  const loadTokens = () => null;
  assert.throws(() => world.client({ loadTokens, clientId: "a" }), /without onTokens/);
  assert.throws(() => world.client({ loadTokens, onTokens() {} }), /without clientId/);
  assert.throws(
    () => world.client({ apiKey: "k", loadTokens, onTokens() {}, clientId: "a" }),
    /Both apiKey and loadTokens/,
  );
});

for (const [how, wait] of [
  ["at once", async () => undefined],
  ["later", () => new Promise((resolve) => setTimeout(resolve, 5))],
]) {
  test(`onTokens and loadTokens may call the client ${how}`, { timeout: 5_000 }, async (t) => {
    const { server, api, client } = await started(t);
    api.accepted = "another";
    const ids = [];
    const user = client({
      loadTokens: async () => {
        if (how !== "at once") await wait();
        ids.push(await user.whoami().catch(({ name }) => name));
        return null;
      },
      onTokens: async () => {
        if (how !== "at once") await wait();
        ids.push((await user.whoami()).id);
      },
    });
    assert.equal((await user.whoami()).id, "me");
    assert.deepEqual([ids, tokenRequests(server)], [["AuthenticationError", "me"], 1]);
  });
}

test("other calls wait for onTokens, and not for ever", { timeout: 5_000 }, async (t) => {
  const { server, client } = await started(t);
  let storing;
  const begun = new Promise((resolve) => (storing = resolve));
  const options = { accessToken: "old", timeout: 50, maxRetries: 0 };
  const user = client({ ...options, onTokens: () => (storing(), new Promise(() => undefined)) });
  const first = user.whoami();
  first.catch(() => undefined);
  await begun;
  await assert.rejects(user.whoami(), (error) => error instanceof APITimeoutError && /onTokens/.test(error.message));
  await assert.rejects(first, APITimeoutError);
  assert.deepEqual(
    server.asked.map(({ path }) => path),
    ["/v1/whoami", "/oauth/token"],
  );
});

const PROGRAM = `
  import { existsSync, readFileSync, writeFileSync } from "node:fs";
  import { MachPay } from ${JSON.stringify(new URL("../dist/index.js", import.meta.url).href)};
  const [, path, baseUrl] = process.argv;
  const client = new MachPay({
    accessToken: "access-0", refreshToken: "refresh-0", clientId: "app", baseUrl,
    onTokens: ({ accessToken, refreshToken }) => writeFileSync(path, JSON.stringify({ accessToken, refreshToken })),
    loadTokens: () => (existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : null),
  });
  console.log((await client.whoami()).id);
`;

test("two processes share one sign-in", async (t) => {
  const { server, api } = await started(t);
  api.accepted = "another";
  const folder = await mkdtemp(join(tmpdir(), "machpay-"));
  t.after(() => rm(folder, { recursive: true }));
  for (let process_ = 0; process_ < 2; process_ += 1) {
    const args = ["--input-type=module", "-e", PROGRAM, join(folder, "tokens.json"), server.url];
    const { stdout } = await promisify(execFile)(process.execPath, args);
    assert.equal(stdout, "me\n");
  }
  assert.equal(tokenRequests(server), 1);
});
