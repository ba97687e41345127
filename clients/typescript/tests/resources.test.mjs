import assert from "node:assert/strict";
import { test } from "node:test";

import { InvalidResponseError, PreconditionFailedError } from "../dist/index.js";
import { serving } from "./server.mjs";
import { clientOf, drained, MASKED, SECRET, World } from "./world.mjs";

const KEY = {
  id: "key_1",
  object: "key",
  account_id: "acct_1",
  name: "production",
  owner: "customer 17",
  environment: "live",
  tier: "partner",
  own_tier: "partner",
  tier_configured: false,
  scopes: ["skills:list"],
  allowed_ips: ["203.0.113.0/24"],
  status: "active",
  masked: MASKED,
  created_at: "2026-01-02T03:04:05Z",
  last_used_at: null,
  expires_at: "2027-01-02T03:04:05.500123Z",
  last_rotated_at: "2026-01-02T03:04:05",
  metadata: { some_team: "a" },
  rotation_due: true,
  secrets: [{ masked: MASKED, current: true, created_at: "2026-01-02T03:04:05+01:00", expires_at: null, x: 1 }],
  colour: "blue",
};
const MOMENT = new Date("2027-01-01T00:00:00Z");
const ADDRESSES = ["203.0.113.10", "203.0.113.0/24"];
const EVERYTHING = {
  name: "a",
  scopes: ["s"],
  owner: "customer 17",
  environment: "test",
  allowed_ips: ["::1"],
  expires_at: "2027-01-01T00:00:00.000Z",
  metadata: { some_key: "é" },
};
const CREATION = { name: "a", scopes: new Set(["s"]), environment: "test", allowedIps: ["::1"], expiresAt: MOMENT };

for (const [called, call, target, body] of [
  ["keys.create", (c) => c.keys.create({ name: "a", scopes: [] }), "POST /v1/keys", { name: "a", scopes: [] }],
  [
    "keys.create with everything",
    (c) => c.keys.create({ ...CREATION, owner: "customer 17", metadata: { some_key: "é" } }),
    ...["POST /v1/keys", EVERYTHING],
  ],
  ["keys.retrieve", (c) => c.keys.retrieve("key_1"), "GET /v1/keys/key_1"],
  ["keys.retrieve, encoded", (c) => c.keys.retrieve("kéy 1?%2e"), "GET /v1/keys/k%C3%A9y%201%3F%252e"],
  ["keys.update with nothing", (c) => c.keys.update("key_1", {}), "PATCH /v1/keys/key_1", {}],
  [
    "keys.update",
    (c) => c.keys.update("key_1", { allowedIps: ADDRESSES }),
    ...["PATCH /v1/keys/key_1", { allowed_ips: ADDRESSES }],
  ],
  [
    "keys.update with null",
    (c) => c.keys.update("key_1", { expiresAt: null, owner: null, name: "b", metadata: undefined }),
    ...["PATCH /v1/keys/key_1", { expires_at: null, owner: null, name: "b" }],
  ],
  ["keys.rotate", (c) => c.keys.rotate("key_1"), "POST /v1/keys/key_1/rotate", { grace_seconds: 86400 }],
  [
    "keys.rotate at once",
    (c) => c.keys.rotate("key_1", { graceSeconds: 0 }),
    ...["POST /v1/keys/key_1/rotate", { grace_seconds: 0 }],
  ],
  ["keys.endGrace", (c) => c.keys.endGrace("key_1"), "POST /v1/keys/key_1/end-grace"],
  ["keys.revoke", (c) => c.keys.revoke("key_1"), "POST /v1/keys/key_1/revoke"],
  ["keys.revoke of itself", (c) => c.keys.revoke("key_1", { self: true }), "POST /v1/keys/key_1/revoke?self=true"],
  ["keys.usage", (c) => c.keys.usage("key_1"), "GET /v1/keys/key_1/usage"],
  [
    "keys.usage by time and bucket",
    (c) => c.keys.usage("key_1", { start: MOMENT, end: "2027-02-01T00:00:00Z", bucket: "day" }),
    "GET /v1/keys/key_1/usage?from=2027-01-01T00%3A00%3A00.000Z&to=2027-02-01T00%3A00%3A00Z&bucket=day",
  ],
  [
    "skills.execute",
    (c) => c.skills.execute({ skillId: "text-summarizer", input: { someText: ["a"], other_text: null } }),
    ...["POST /v1/skills/execute", { skill_id: "text-summarizer", input: { someText: ["a"], other_text: null } }],
  ],
  ["account.retrieve", (c) => c.account.retrieve(), "GET /v1/account"],
  ["sessions.create", (c) => c.sessions.create(), "POST /v1/sessions", {}],
  [
    "sessions.create with everything",
    (c) => c.sessions.create({ scopes: ["skills:execute"], ttlSeconds: 900 }),
    ...["POST /v1/sessions", { scopes: ["skills:execute"], ttl_seconds: 900 }],
  ],
  ["whoami", (c) => c.whoami(), "GET /v1/whoami"],
]) {
  test(`${called} is ${target}`, async (t) => {
    const server = await serving(t);
    server.says({ body: { ...KEY, secret: SECRET, key_id: "key_1", token: "token-1", created_at: null } });
    await call(clientOf(server));
    const asked = server.last;
    assert.equal(`${asked.method} ${asked.path}${asked.query && `?${asked.query}`}`, target);
    assert.deepEqual(asked.body === "" ? undefined : JSON.parse(asked.body), body);
    assert.equal("content-type" in asked.headers, body !== undefined);
    assert.equal("idempotency-key" in asked.headers, asked.method !== "GET");
  });
}

test("a key is read into its types, and what its user has put into it is left as it is", async (t) => {
  const server = await serving(t);
  server.says({ body: KEY, headers: { etag: '"7"' } });
  const key = await clientOf(server).keys.retrieve("key_1");
  const plain = [key.id, key.name, key.owner, key.tier, key.status, key.environment, key.accountId, key.masked];
  assert.deepEqual(plain, ["key_1", "production", "customer 17", "partner", "active", "live", "acct_1", MASKED]);
  assert.deepEqual([key.ownTier, key.tierConfigured], ["partner", false]);
  assert.deepEqual([key.scopes, key.allowedIps], [["skills:list"], ["203.0.113.0/24"]]);
  assert.deepEqual(key.createdAt, new Date("2026-01-02T03:04:05Z"));
  assert.deepEqual(key.expiresAt, new Date("2027-01-02T03:04:05.500Z"));
  assert.deepEqual(key.lastRotatedAt, new Date("2026-01-02T03:04:05Z")); // the API's times are UTC
  assert.equal(key.lastUsedAt, null);
  assert.equal(key.rotationDue, true);
  assert.deepEqual(key.metadata, { some_team: "a" });
  const { masked, current, createdAt, extra } = key.secrets[0];
  assert.deepEqual([masked, current, extra], [MASKED, true, { x: 1 }]);
  assert.deepEqual(createdAt, new Date("2026-01-02T02:04:05Z"));
  assert.deepEqual(key.extra, { colour: "blue" });
  assert.equal(key.etag, '"7"');
  assert.equal("secret" in key, false);
});

test("an older server may say less of a key", async (t) => {
  const server = await serving(t);
  server.says({ status: 201, body: { id: "key_1", secret: SECRET } });
  const key = await clientOf(server).keys.create({ name: "a", scopes: [] });
  assert.deepEqual([key.secret, key.scopes, key.createdAt, key.rotationDue], [SECRET, [], null, false]);
});

test("an ETag goes back as a condition", async (t) => {
  const server = await serving(t);
  const client = clientOf(server);
  server.says({ body: KEY, headers: { etag: '"7"' } }, { status: 412, body: { title: "Changed meanwhile" } });
  const { etag } = await client.keys.retrieve("key_1");
  await assert.rejects(client.keys.update("key_1", { name: "b", ifMatch: etag }), PreconditionFailedError);
  assert.equal(server.last.headers["if-match"], '"7"');
});

const KINDS = { outcomes: { allowed: 2, rate_limited: 1 }, statuses: { 200: 2, 429: 1 } };

test("usage is read into its types", async (t) => {
  const server = await serving(t);
  const counts = { requests: 3, allowed: 2, refused: 1, ...KINDS };
  const hour = { ...counts, start: "2026-01-02T03:00:00Z", latency_ms: { mean: 1.5, p50: 1, p95: 2.25, p99: null } };
  const total = { ...counts, routes: { "GET /v1/skills": 3 }, x: 1 };
  const period = { from: "2026-01-01T04:00:00Z", to: "2026-01-02T04:00:00Z" };
  server.says({ body: { object: "usage", key_id: "key_1", bucket: "hour", ...period, data: [hour], total } });
  const usage = await clientOf(server).keys.usage("key_1");
  assert.deepEqual([usage.keyId, usage.bucket, usage.start], ["key_1", "hour", new Date(period.from)]);
  const [first] = usage.data;
  assert.deepEqual(first.start, new Date(hour.start));
  assert.deepEqual([first.requests, first.allowed, first.refused, first.outcomes], [3, 2, 1, KINDS.outcomes]);
  assert.deepEqual(first.latencyMs, { mean: 1.5, p50: 1, p95: 2.25, p99: null });
  assert.deepEqual([usage.total.start, usage.total.routes, usage.total.extra], [null, total.routes, { x: 1 }]);
  assert.deepEqual(usage.total.latencyMs, { mean: null, p50: null, p95: null, p99: null });
});

for (const total of [{ requests: "3" }, { outcomes: { allowed: 1.5 } }, { latency_ms: { mean: "1" } }, []]) {
  test(`usage that is no number is told: ${JSON.stringify(total)}`, async (t) => {
    const server = await serving(t);
    server.says({ body: { key_id: "key_1", total } });
    await assert.rejects(clientOf(server).keys.usage("key_1"), { name: "InvalidResponseError", message: /total/ });
  });
}

test("skills are listed and executed, and their output is left as it is", async (t) => {
  const server = await serving(t);
  const client = clientOf(server);
  server.says(
    { body: { data: [{ id: "sentiment", name: "Mood", price: 1 }], caller: { id: "key_1" } } },
    { body: { skill_id: "sentiment", output: { some_mood: ["Done."] }, caller: { id: "key_1" } } },
  );
  const [skill] = await drained(client.skills.list());
  assert.deepEqual([skill.id, skill.name, skill.extra.price], ["sentiment", "Mood", 1]);
  const done = await client.skills.execute({ skillId: skill.id, input: {} });
  assert.deepEqual(
    [done.skillId, done.output, done.extra],
    ["sentiment", { some_mood: ["Done."] }, { caller: { id: "key_1" } }],
  );
});

test("whoami tells who, and keeps the rest", async (t) => {
  const server = await serving(t);
  server.says({ body: { id: "key_1", tier: "standard", scopes: ["a"], limits: { minute: 1 } } });
  const identity = await clientOf(server).whoami();
  assert.deepEqual([identity.id, identity.name, identity.tier, identity.scopes], ["key_1", null, "standard", ["a"]]);
  assert.deepEqual(identity.extra, { limits: { minute: 1 } });
});

test("a session has a token for a client of its own", async (t) => {
  const server = await serving(t);
  const times = { expires_in: 900, expires_at: "2026-11-24T14:15:00Z" };
  const body = {
    object: "session",
    id: "session_1",
    token: "token-of-a-session",
    token_type: "Bearer",
    ...times,
    scopes: ["a"],
  };
  server.says({ status: 201, body });
  const session = await clientOf(server).sessions.create({ ttlSeconds: 900 });
  assert.deepEqual([session.id, session.tokenType, session.expiresIn], ["session_1", "Bearer", 900]);
  assert.deepEqual([session.scopes, session.extra], [["a"], {}]);
  assert.deepEqual(session.expiresAt, new Date(times.expires_at));
  await new World().client({ accessToken: session.token, baseUrl: server.url }).whoami();
  assert.equal(server.last.headers.authorization, "Bearer token-of-a-session");
});

for (const [what, call, message] of [
  ["an empty id", (c) => c.keys.retrieve(""), 'keyId "" is not an identifier.'],
  ["no id", (c) => c.keys.retrieve(undefined), "keyId undefined is not an identifier."],
  ["an id that leads up", (c) => c.keys.retrieve(".."), /change the path/],
  ["an id that leads down", (c) => c.keys.revoke("a/b"), /change the path/],
  ["an id that leads down elsewhere", (c) => c.keys.rotate("a\\b"), /change the path/],
  ["half a character", (c) => c.keys.rotate("\ud800"), /not valid Unicode/],
  ["one scope for a list", (c) => c.keys.create({ name: "a", scopes: "skills:list" }), /write scopes: \[…\]/],
  ["a list of numbers", (c) => c.keys.create({ name: "a", scopes: [1] }), "scopes holds 1, which is not a string."],
  ["one address for a list", (c) => c.keys.update("k", { allowedIps: "::1" }), /write allowedIps: \[…\]/],
  [
    "a name that is not known",
    (c) => c.keys.create({ name: "a", scopes: [], allowed_ips: [] }),
    /takes no "allowed_ips"/,
  ],
  ["a name in a filter", (c) => c.keys.list({ state: "active" }), /keys.list takes no "state"/],
  ["an id among the changes", (c) => c.keys.update({ keyId: "k" }), /keys.update takes an object/],
  ["no time", (c) => c.keys.update("k", { expiresAt: new Date(NaN) }), "expiresAt is a Date without a time."],
  ["another header", (c) => c.keys.update("k", { name: "b", ifMatch: "a\r\nb" }), /^ifMatch /],
  ["no idempotency key", (c) => c.keys.endGrace("k", { idempotencyKey: "" }), /^idempotencyKey /],
  ["what is no number in JSON", (c) => c.skills.execute({ skillId: "a", input: { a: NaN } }), /JSON cannot hold/],
  ["what is not in JSON", (c) => c.skills.execute({ skillId: "a", input: { a: 1n } }), /JSON cannot hold/],
]) {
  test(`${what} is refused before it is sent`, async (t) => {
    const server = await serving(t);
    const error = { name: "InvalidArgumentError", message };
    await assert.rejects(async () => await call(clientOf(server)), error);
    assert.equal(server.asked.length, 0);
  });
}

for (const [answer, message] of [
  [
    { body: "<html>", headers: { "content-type": "text/html" } },
    /not JSON but text\/html \(status 200\); is baseUrl right/,
  ],
  [{ body: [1] }, /not an object/],
  [{ body: { name: "a" } }, /id is missing/],
  [{ body: { ...KEY, scopes: "a" } }, /scopes: not an array/],
  [{ body: { ...KEY, created_at: "yesterday" } }, /created_at: not a time/],
  [{ body: { ...KEY, created_at: "7" } }, /created_at: not a time/],
  [{ body: { ...KEY, rotation_due: 1 } }, /rotation_due: neither true nor false/],
]) {
  test(`an answer that is none of this API is told: ${message}`, async (t) => {
    const server = await serving(t);
    server.says(answer);
    await assert.rejects(clientOf(server).keys.retrieve("key_1"), (error) => {
      assert.ok(error instanceof InvalidResponseError);
      assert.match(error.message, message);
      assert.equal(error.response.status, 200);
      return true;
    });
  });
}

test("an account and an identity have typed members, and JSON has all of them", async (t) => {
  const server = await serving(t);
  const account = { id: "acct_1", balance: 7, currency: "USD", history: [{ amount: 1 }], api_token: "t".repeat(30) };
  server.says({ body: account });
  const result = await clientOf(server).account.retrieve();
  assert.deepEqual([result.id, result.name, result.balance, result.currency], ["acct_1", null, 7, "USD"]);
  const shown = { ...account, name: null, api_token: "…tttt" };
  assert.deepEqual(JSON.parse(JSON.stringify(result)), shown);
  const limits = { rate: "1000/minute", requests: 1000, window_seconds: 60, concurrency: 50 };
  const policy = {
    policy: "minute",
    limit: 1000,
    window_seconds: 60,
    remaining: 999,
    reset_seconds: 60,
    enforced: true,
  };
  const members = {
    kind: "api_key",
    account_id: "acct_1",
    expires_at: "2030-01-01T00:00:00Z",
    limits,
    policies: [policy],
  };
  server.says({ body: { object: "principal", id: "key_1", ...members, colour: "blue" } });
  const me = await clientOf(server).whoami();
  assert.deepEqual([me.kind, me.accountId, me.expiresAt.getTime()], ["api_key", "acct_1", Date.UTC(2030, 0)]);
  assert.deepEqual(me.limits, { rate: "1000/minute", requests: 1000, windowSeconds: 60, concurrency: 50 });
  assert.deepEqual([me.policies[0].resetSeconds, me.policies[0].enforced, me.remaining], [60, true, null]);
  assert.deepEqual(me.extra, { ...members, colour: "blue" });
  const { colour, accountId, account_id } = JSON.parse(JSON.stringify(me));
  assert.deepEqual([colour, accountId, account_id], ["blue", "acct_1", undefined]);
});
