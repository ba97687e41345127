import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { test } from "node:test";

import {
  APIConnectionError,
  APIStatusError,
  APITimeoutError,
  InternalServerError,
  MachPay,
  RateLimitError,
  VERSION,
} from "../dist/index.js";
import { serving } from "./server.mjs";
import { clientOf, SECRET, World } from "./world.mjs";

const BUSY = { status: 503 };
const LIMITS = {
  "ratelimit-policy": '"minute";q=1000;w=60, "concurrency";q=50;qu="concurrent-requests"',
  ratelimit: '"minute";r=742;t=12, "concurrency";r=47',
};

test("a request carries the credential and says who asks", async (t) => {
  const server = await serving(t);
  await clientOf(server).whoami();
  const { method, path, body, headers } = server.last;
  assert.deepEqual([method, path, body], ["GET", "/v1/whoami", ""]);
  assert.equal(headers.authorization, `Bearer ${SECRET}`);
  assert.equal(headers["user-agent"], `machpay-typescript/${VERSION}`);
  assert.equal(headers.accept, "application/json");
  assert.equal("idempotency-key" in headers, false);
  assert.equal("content-type" in headers, false);
});

test("a path in the base URL stays in front", async (t) => {
  const server = await serving(t);
  await clientOf(server, { baseUrl: `${server.url}/proxied/` }).whoami();
  assert.equal(server.last.path, "/proxied/v1/whoami");
});

test("results carry limits, request id, status and headers", async (t) => {
  const server = await serving(t);
  server.says({ body: { id: "acct_1", balance: 7 }, headers: { ...LIMITS, "x-request-id": "req-9" } });
  const account = await clientOf(server).account.retrieve();
  assert.deepEqual([account.id, account.extra.balance, account.requestId], ["acct_1", 7, "req-9"]);
  assert.equal(account.rateLimit.get("minute").remaining, 742);
  assert.equal(account.rateLimit.get("concurrency").unit, "concurrent-requests");
  assert.deepEqual([account.response.status, account.response.attempts], [200, 1]);
  assert.equal(account.response.headers.get("Content-Type"), "application/json");
});

for (const status of [408, 429, 500, 502, 503, 504]) {
  test(`${status} passes, and is tried again`, async (t) => {
    const [server, world] = [await serving(t), new World()];
    server.says({ status }, { status }, { body: { id: "acct_1" } });
    const account = await clientOf(server, {}, world).account.retrieve();
    assert.equal(account.response.attempts, 3);
    assert.deepEqual(world.slept, [500, 1000]);
  });
}

for (const status of [400, 401, 403, 404, 409, 412, 422, 501]) {
  test(`${status} stays, and is asked for once`, async (t) => {
    const [server, world] = [await serving(t), new World()];
    server.says({ status });
    await assert.rejects(clientOf(server, {}, world).whoami(), APIStatusError);
    assert.deepEqual([server.asked.length, world.slept], [1, []]);
  });
}

for (const [headers, slept] of [
  [{ "retry-after": "7" }, 7_000],
  [{ "retry-after": "60" }, 60_000],
  [{ date: "Wed, 21 Oct 2015 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2015 07:28:09 GMT" }, 9_000],
  [{ "retry-after": "soon" }, 500], // malformed: as if it were not there
]) {
  test(`the wait is the server's where it names one: ${JSON.stringify(headers)}`, async (t) => {
    const [server, world] = [await serving(t), new World()];
    server.says({ status: 429, headers }, {});
    await clientOf(server, {}, world).whoami();
    assert.deepEqual(world.slept, [slept]);
  });
}

for (const [drawn, slept] of [
  [1, 61_000], // the gateway's longest wait: a window, and the second that it rounds up to
  [0.5, 65_000],
  [0, 69_000],
]) {
  test(`calls that were refused at once do not return at once: ${slept} ms`, async (t) => {
    const [server, world] = [await serving(t), new World()];
    world.drawn = drawn;
    server.says({ status: 429, headers: { "retry-after": "61" } }, {});
    await clientOf(server, {}, world).whoami();
    assert.deepEqual(world.slept, [slept]);
  });
}

test("a wait of more than two minutes is not begun", async (t) => {
  const server = await serving(t);
  server.says({ status: 429, headers: { "retry-after": "121" } });
  await assert.rejects(
    clientOf(server, { timeout: 100_000 }).whoami(),
    (error) => error instanceof RateLimitError && error.retryAfter === 121,
  );
  assert.equal(server.asked.length, 1);
});

test("a wait beyond the deadline is not begun", async (t) => {
  const server = await serving(t);
  server.says({ status: 429, headers: { "retry-after": "30" } });
  await assert.rejects(clientOf(server, { timeout: 10_000, maxRetries: 2 }).whoami(), RateLimitError);
  assert.equal(server.asked.length, 1);
});

test("all attempts together end with the deadline", async (t) => {
  const [server, world] = [await serving(t), new World()];
  server.says({ status: 429, headers: { "retry-after": "20" } });
  await assert.rejects(clientOf(server, { timeout: 10_000, maxRetries: 4 }, world).whoami(), RateLimitError);
  assert.deepEqual(world.slept, [20_000, 20_000]); // a third one would end at 60 s, and 50 s are all there is
});

test("the last attempt has only the time that is left", { timeout: 5_000 }, async (t) => {
  const server = await serving(t);
  server.says({ status: 429, headers: { "retry-after": "59" } }, { silent: true });
  const client = clientOf(server, { timeout: 29_550, maxRetries: 1 }); // 59.1 s in all
  await assert.rejects(client.whoami(), APITimeoutError);
});

test("retries run out, and the last answer is thrown", async (t) => {
  const server = await serving(t);
  server.says(BUSY);
  const failed = (error) => error instanceof InternalServerError && error.response.attempts === 4;
  await assert.rejects(clientOf(server, { maxRetries: 3 }).whoami(), failed);
  assert.equal(server.asked.length, 4);
});

test("any part of the wait may be drawn", async (t) => {
  const [server, world] = [await serving(t), new World()];
  world.drawn = 0.25;
  server.says(BUSY, {});
  await clientOf(server, {}, world).whoami();
  assert.deepEqual(world.slept, [125]);
});

test("a conflict is tried again when the server says so, and nothing when it says not to", async (t) => {
  const [server, world] = [await serving(t), new World()];
  const said = [{ "x-should-retry": "true" }, { "retry-after": "1" }].map((headers) => ({ status: 409, headers }));
  server.says(...said, {});
  await clientOf(server, {}, world).whoami();
  assert.deepEqual(world.slept, [500, 1000]);
  server.says({ ...BUSY, headers: { "x-should-retry": "false" } });
  await assert.rejects(clientOf(server, {}, world).whoami(), InternalServerError);
  assert.equal(server.asked.length, 4);
});

test("one idempotency key goes through all attempts of a call", async (t) => {
  const server = await serving(t);
  const client = clientOf(server);
  server.says(BUSY, BUSY, {});
  for (let call = 0; call < 2; call += 1) await client.skills.execute({ skillId: "a", input: {} });
  const [first, second, third, other] = server.asked.map((asked) => asked.headers["idempotency-key"]);
  assert.match(first, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.deepEqual([second, third], [first, first]);
  assert.notEqual(other, first);
  assert.equal(new Set(server.asked.map((asked) => asked.body)).size, 1);
});

test("an idempotency key of one's own is sent", async (t) => {
  const server = await serving(t);
  await clientOf(server).skills.execute({ skillId: "a", input: {}, idempotencyKey: "order-17" });
  assert.equal(server.last.headers["idempotency-key"], "order-17");
});

test("a silent server is a timeout, and the next attempt may do better", async (t) => {
  const server = await serving(t);
  server.says({ silent: true });
  const client = clientOf(server, { timeout: 100, maxRetries: 0 });
  await assert.rejects(client.whoami(), (error) => {
    assert.ok(error instanceof APITimeoutError && error instanceof APIConnectionError);
    assert.equal(error.message, `GET /v1/whoami at ${server.url} got no response in time.`);
    return true;
  });
  server.says({ silent: true }, {});
  await clientOf(server, { timeout: 1000 }).whoami(); // as long as a busy machine may need for the second attempt
});

test("a body that drips ends with the timeout", async (t) => {
  const server = await serving(t);
  server.says({ drips: true });
  await assert.rejects(clientOf(server, { timeout: 100, maxRetries: 0 }).whoami(), APITimeoutError);
});

test("a fetch that does not look at its signal ends with the timeout, too", async () => {
  const options = { accessToken: "t", timeout: 20, maxRetries: 0, fetch: () => new Promise(() => {}) };
  await assert.rejects(new World().client(options).whoami(), APITimeoutError);
});

test("an answer cut short is tried again", async (t) => {
  const server = await serving(t);
  server.says({ cut: true }, { body: { id: "acct_1" } });
  assert.equal((await clientOf(server).account.retrieve()).response.attempts, 2);
});

test("a connection that breaks off is told with its reason and without the credential", async (t) => {
  const [server, world] = [await serving(t), new World()];
  server.says({ resets: true });
  await assert.rejects(clientOf(server, {}, world).skills.execute({ skillId: "a", input: {} }), (error) => {
    assert.ok(error instanceof APIConnectionError && !(error instanceof APITimeoutError));
    assert.ok(error.message.startsWith(`POST /v1/skills/execute at ${server.url} got no response: `));
    assert.doesNotMatch(error.message, /fetch failed/);
    assert.ok(error.cause instanceof Error);
    return true;
  });
  assert.equal(server.asked.length, 3);
  assert.deepEqual(world.slept, [500, 1000]);
});

test("a server that is not there is a connection error", async () => {
  const listening = createServer().listen(0, "127.0.0.1");
  await once(listening, "listening");
  const { port } = listening.address();
  listening.close();
  await once(listening, "close");
  const world = new World();
  const client = world.client({ apiKey: SECRET, baseUrl: `http://127.0.0.1:${port}`, maxRetries: 1 });
  await assert.rejects(client.whoami(), { name: "APIConnectionError", message: /ECONNREFUSED/ });
  assert.deepEqual(world.slept, [500]);
});

for (const status of [301, 302, 303, 307, 308]) {
  test(`${status} is an error, and never followed`, async (t) => {
    const server = await serving(t);
    server.says({ status, headers: { location: "/v1/elsewhere" } });
    const refused = { name: "APIStatusError", status, message: /never followed/ };
    await assert.rejects(clientOf(server).whoami(), refused);
    const params = { refreshToken: "refresh-1", clientId: "c" };
    await assert.rejects(clientOf(server).oauth.refreshToken(params), refused);
    assert.deepEqual(
      server.asked.map((asked) => asked.path),
      ["/v1/whoami", "/oauth/token"],
    );
  });
}

test("a redirect of which a browser hides everything is the same error", async () => {
  const opaque = { status: 0, type: "opaqueredirect", headers: new Headers(), text: async () => "" };
  const client = new World().client({ accessToken: "t", fetch: async () => opaque });
  await assert.rejects(client.whoami(), {
    name: "APIStatusError",
    message: /^0 Redirect\. Redirects are never followed/,
  });
});

test("a fetch of one's own is what sends", async (t) => {
  const server = await serving(t);
  const sent = [];
  const client = clientOf(server, { fetch: (url, init) => (sent.push(url), fetch(url, init)) });
  await client.whoami();
  assert.deepEqual(sent, [`${server.url}/v1/whoami`]);
});

test("the global fetch is looked up when it is needed", async (t) => {
  const before = globalThis.fetch;
  t.after(() => (globalThis.fetch = before));
  const client = new MachPay({ accessToken: "t" });
  globalThis.fetch = async () => new Response('{"id": "key_1"}');
  assert.equal((await client.whoami()).id, "key_1");
});

test("withOptions changes a copy", async (t) => {
  const server = await serving(t);
  const client = clientOf(server);
  server.says(BUSY);
  await assert.rejects(client.withOptions({ maxRetries: 0, timeout: 5000 }).whoami(), InternalServerError);
  assert.equal(server.asked.length, 1);
  server.says(BUSY, {});
  await client.whoami();
  assert.equal(server.asked.length, 3);
});
