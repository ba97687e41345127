import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";

import {
  APIConnectionError,
  APITimeoutError,
  APIUserAbortError,
  ConfigurationError,
  InternalServerError,
  InvalidArgumentError,
  MachPay,
  NotFoundError,
  PermissionDeniedError,
} from "../dist/index.js";
import { EventParser, LineSplitter } from "../dist/wire/server-sent-events.js";
import { gate, serving } from "./server.mjs";
import { clientOf, drained, SECRET, World } from "./world.mjs";

const BUSY = { status: 503 };
const JSON_TYPE = "application/json";

for (const [call, method, target, body, type] of [
  [(c) => c.get("/v1/orders"), "GET", "/v1/orders", "", undefined],
  [
    (c) => c.get("/v1/o?a=1", { query: { b: [2, "é &"], c: undefined, d: true } }),
    "GET",
    "/v1/o?a=1&b=2&b=%C3%A9+%26&d=true",
    "",
    undefined,
  ],
  [(c) => c.post("/v1/o", { json: { a: "é" } }), "POST", "/v1/o", '{"a":"é"}', JSON_TYPE],
  [(c) => c.post("/v1/o", { json: null }), "POST", "/v1/o", "null", JSON_TYPE],
  [(c) => c.post("/v1/o", { body: { a: 1 } }), "POST", "/v1/o", '{"a":1}', JSON_TYPE],
  [(c) => c.put("/v1/o", { body: "é" }), "PUT", "/v1/o", "é", "text/plain;charset=UTF-8"],
  [(c) => c.put("/v1/o", { body: new Uint8Array([97]) }), "PUT", "/v1/o", "a", undefined],
  [
    (c) => c.post("/v1/o", { body: new URLSearchParams("a=1") }),
    "POST",
    "/v1/o",
    "a=1",
    "application/x-www-form-urlencoded;charset=UTF-8",
  ],
  [
    (c) => c.patch("/v1/o", { body: "a,b", headers: { "content-type": "text/csv" } }),
    "PATCH",
    "/v1/o",
    "a,b",
    "text/csv",
  ],
  [(c) => c.delete("/v1/o/1"), "DELETE", "/v1/o/1", "", undefined],
  [(c) => c.request("options", "/v1/o"), "OPTIONS", "/v1/o", "", undefined],
]) {
  test(`any endpoint can be called: ${call}`, async (t) => {
    const server = await serving(t);
    server.says({ status: 201, body: { id: 1 }, headers: { ratelimit: '"minute";r=5' } });
    const response = await call(clientOf(server));
    const { path, query, headers, ...asked } = server.last;
    assert.deepEqual([asked.method, query ? `${path}?${query}` : path, asked.body], [method, target, body]);
    assert.equal(headers["content-type"], type);
    assert.equal(headers.authorization, `Bearer ${SECRET}`);
    assert.equal(headers["idempotency-key"], undefined);
    assert.deepEqual([response.status, response.json(), response.requestId], [201, { id: 1 }, "req-1"]);
    assert.equal(response.rateLimit.get("minute").remaining, 5);
  });
}

for (const [call, message] of [
  [(c) => c.get("https://elsewhere.example/v1"), /start with a slash/],
  [(c) => c.get("@elsewhere.example"), /start with a slash/],
  [(c) => c.get("/v1#a"), /start with a slash/],
  [(c) => c.request("GE T", "/v1"), /not a method/],
  [(c) => c.post("/v1", { json: 1, body: "a" }), /Both json and body/],
  [(c) => c.post("/v1", { json: 1n }), /JSON cannot hold/],
  [(c) => c.get("/v1", { headers: { Authorization: "x" } }), /pass apiKey/],
  [(c) => c.get("/v1", { headers: { "a b": "x" } }), /not the name/],
  [(c) => c.get("/v1", { headers: { a: "x\r\ny" } }), /the value of a/],
  [(c) => c.get("/v1", { params: {} }), /takes no "params"/],
  [(c) => c.get("/v1", { signal: {} }), /has to be an AbortSignal/],
  [(c) => c.whoami({ a: 1 }), /whoami takes no "a"/],
  [(c) => c.whoami(null), /whoami takes an object/],
  [(c) => c.account.retrieve({ a: 1 }), /account.retrieve takes no "a"/],
  [(c) => c.keys.retrieve("key_1", { expand: [] }), /keys.retrieve takes no "expand"/],
  [(c) => c.keys.retrieve("key_1", { idempotencyKey: "a" }), /keys.retrieve takes no "idempotencyKey"/],
  [(c) => c.keys.create({ name: "a", scopes: [] }, { tmeout: 1 }), /keys.create takes no "tmeout"/],
  [(c) => drained(c.skills.list({ limit: 1 })), /skills.list takes no "limit"/],
]) {
  test(`a wrong call is refused before it is sent: ${call}`, async (t) => {
    const server = await serving(t);
    await assert.rejects(
      async () => call(clientOf(server)),
      (error) => {
        assert.ok(error instanceof InvalidArgumentError, String(error));
        assert.match(error.message, message);
        return true;
      },
    );
    assert.equal(server.asked.length, 0);
  });
}

for (const [method, idempotencyKey, answers, attempts] of [
  ["GET", undefined, [BUSY, { status: 500 }, {}], 3],
  ["PUT", undefined, [BUSY, { status: 504 }, {}], 3],
  ["DELETE", undefined, [BUSY, { status: 502 }, {}], 3],
  ["POST", "order-17", [BUSY, { status: 500 }, {}], 3],
  ["POST", undefined, [BUSY], 1],
  ["PATCH", undefined, [{ status: 500 }], 1],
  ["POST", undefined, [{ resets: true }], 1],
  ["POST", undefined, [{ status: 429, headers: { "retry-after": "1" } }, {}], 2], // refused, so it had no effect
]) {
  test(`a request is retried when it is safe: ${method} ${idempotencyKey} ${JSON.stringify(answers)}`, async (t) => {
    const server = await serving(t);
    server.says(...answers);
    const options = { idempotencyKey };
    const outcome = await clientOf(server)
      .request(method, "/v1/o", options)
      .catch((error) => error);
    assert.equal(outcome instanceof Error, attempts === 1);
    assert.deepEqual(
      server.asked.map((asked) => asked.headers["idempotency-key"]),
      Array(attempts).fill(idempotencyKey),
    );
  });
}

test("an error of any endpoint is thrown", async (t) => {
  const server = await serving(t);
  server.says({ status: 404 });
  await assert.rejects(clientOf(server).get("/v1/nothing"), NotFoundError);
});

test("a call has options of its own, in its parameters or after them", async (t) => {
  const server = await serving(t);
  const client = clientOf(server, { defaultHeaders: { "X-Team": "a", "Accept-Language": "en" } });
  server.says(BUSY);
  await assert.rejects(
    client.keys.retrieve("key_1", { maxRetries: 0, headers: { "x-team": "b" } }),
    InternalServerError,
  );
  assert.equal(server.asked.length, 1);
  const { "x-team": team, "accept-language": language } = server.last.headers;
  assert.deepEqual([team, language], ["b", "en"]);
  server.says({ silent: true });
  await assert.rejects(client.get("/v1/x", { timeout: 30, maxRetries: 0 }), APITimeoutError);
  server.says({ body: { id: "key_1", secret: SECRET } });
  const creation = { name: "a", scopes: [] };
  await client.keys.create(creation, { idempotencyKey: "one" });
  await client.keys.create({ ...creation, idempotencyKey: "two", headers: { a: "b" } });
  const [first, second] = server.asked.slice(-2).map(({ headers }) => [headers["idempotency-key"], headers.a]);
  assert.deepEqual(
    [first, second],
    [
      ["one", undefined],
      ["two", "b"],
    ],
  );
  await client.withOptions({ defaultHeaders: { "x-team": "c" } }).whoami();
  assert.deepEqual([server.last.headers["x-team"], server.last.headers["accept-language"]], ["c", "en"]);
});

test("default headers do not go to the authorization server, and are no credential", async (t) => {
  const server = await serving(t);
  server.says({ body: { access_token: "a".repeat(20) } });
  const client = clientOf(server, { defaultHeaders: { "X-Team": "a" } });
  await client.oauth.refreshToken({ refreshToken: "r", clientId: "a" });
  assert.equal(server.last.headers["x-team"], undefined);
  assert.throws(() => new MachPay({ defaultHeaders: { authorization: "x" } }), ConfigurationError);
});

test("hooks and the logger see every attempt, and no secret", async (t) => {
  const server = await serving(t);
  const [sent, ended, lines] = [[], [], []];
  const hooks = { onRequest: (event) => sent.push(event), onResponse: (event) => ended.push(event) };
  const client = clientOf(server, { ...hooks, logger: { debug: (line) => lines.push(line) } });
  server.says(BUSY, {});
  await client.get("/v1/x", { query: { secret: "hidden" } });
  const url = `${server.url}/v1/x`;
  assert.deepEqual(
    sent,
    [1, 2].map((attempt) => ({ method: "GET", url, attempt })),
  );
  assert.deepEqual(
    ended.map(({ status, requestId, error }) => [status, requestId, error]),
    [
      [503, "req-1", null],
      [200, "req-1", null],
    ],
  );
  assert.equal(lines.length, 3);
  assert.doesNotMatch(JSON.stringify([sent, ended, lines]), /hidden|0123456789abcdef/);
  assert.throws(() => new MachPay({ logger: {} }), ConfigurationError);
  assert.throws(() => new MachPay({ onRequest: 1 }), ConfigurationError);
});

const OPTIONAL = { id: "k", secret: SECRET, token: "t", key_id: "k", access_token: "a", data: [], active: true };
const APP = { clientId: "a", clientSecret: "s" };
const CALLS = [
  (c, o) => c.whoami(o),
  (c, o) => c.account.retrieve(o),
  (c, o) => c.keys.create({ name: "a", scopes: [] }, o),
  (c, o) => c.keys.create({ name: "a", scopes: [], ...o }),
  (c, o) => c.keys.list({}, o),
  (c, o) => c.keys.list(o),
  (c, o) => c.keys.retrieve("k", o),
  (c, o) => c.keys.update("k", {}, o),
  (c, o) => c.keys.rotate("k", {}, o),
  (c, o) => c.keys.endGrace("k", o),
  (c, o) => c.keys.revoke("k", {}, o),
  (c, o) => c.keys.usage("k", {}, o),
  (c, o) => c.skills.execute({ skillId: "a", input: {} }, o),
  (c, o) => c.skills.list(o),
  (c, o) => c.sessions.create({}, o),
  (c, o) => c.oauthClients.create({ name: "a", scopes: [] }, o),
  (c, o) => c.oauthClients.list({}, o),
  (c, o) => c.oauthClients.retrieve("a", o),
  (c, o) => c.oauthClients.update("a", {}, o),
  (c, o) => c.oauthClients.rotateSecret("a", {}, o),
  (c, o) => c.oauthClients.delete("a", o),
  (c, o) => c.grants.list({}, o),
  (c, o) => c.grants.revoke("g", o),
  (c, o) => c.auditLog.list({}, o),
  (c, o) => c.oauth.exchangeCode({ code: "c", redirectUri: "r", ...APP }, o),
  (c, o) => c.oauth.refreshToken({ refreshToken: "r", ...APP }, o),
  (c, o) => c.oauth.clientCredentials(APP, o),
  (c, o) => c.oauth.introspect({ token: "t", ...APP }, o),
  (c, o) => c.oauth.revoke({ token: "t", ...APP }, o),
  (c, o) => c.get("/v1/x", o),
  (c, o) => c.post("/v1/x", o),
  (c, o) => c.stream("GET", "/v1/x", o),
];

test("every call takes a signal, which ends it at once and leaves nothing behind", async (t) => {
  const server = await serving(t);
  for (const call of CALLS) {
    const [arrived, controller] = [gate(), new AbortController()];
    server.says(() => (arrived.open(), { silent: true }));
    const before = server.asked.length;
    const calling = Promise.resolve(call(clientOf(server), { signal: controller.signal }));
    calling.catch(() => undefined);
    await arrived.opened;
    controller.abort(new Error("enough"));
    await assert.rejects(calling, (error) => error instanceof APIUserAbortError && error.cause.message === "enough");
    assert.equal(server.asked.length, before + 1, String(call));
    assert.equal(getEventListeners(controller.signal, "abort").length, 0, String(call));
    await assert.rejects(Promise.resolve(call(clientOf(server), { signal: controller.signal })), APIUserAbortError);
    assert.equal(server.asked.length, before + 1, `${call}: nothing is sent after it`);
    server.says({ body: OPTIONAL });
    const again = new AbortController();
    await call(clientOf(server), { signal: again.signal });
    if (!String(call).includes("stream"))
      assert.equal(getEventListeners(again.signal, "abort").length, 0, String(call));
  }
});

test("a signal ends the wait before a retry", { timeout: 5_000 }, async (t) => {
  const [server, controller] = [await serving(t), new AbortController()];
  server.says({ status: 429, headers: { "retry-after": "60" } });
  const options = { apiKey: SECRET, baseUrl: server.url, onResponse: () => setImmediate(() => controller.abort()) };
  await assert.rejects(new MachPay(options).whoami({ signal: controller.signal }), APIUserAbortError);
  assert.equal(server.asked.length, 1);
});

test("a signal ends the wait for a refresh, which goes on for others", async (t) => {
  const [server, arrived, go] = [await serving(t), gate(), gate()];
  server.says(async ({ path }) => {
    if (path !== "/oauth/token") return { body: { id: "key_1" } };
    arrived.open();
    await go.opened;
    return { body: { access_token: "access-1" } };
  });
  const client = new World().client({ refreshToken: "refresh-0", clientId: "a", baseUrl: server.url });
  const controller = new AbortController();
  const [first, second] = [client.whoami({ signal: controller.signal }), client.whoami()];
  await arrived.opened;
  controller.abort();
  await assert.rejects(first, APIUserAbortError);
  go.open();
  assert.equal((await second).id, "key_1");
  assert.equal(server.asked.length, 2);
});

test("an abort in a fetch of one's own is not retried", async () => {
  let asked = 0;
  const fetch = async () => {
    asked += 1;
    throw new DOMException("This operation was aborted", "AbortError");
  };
  const world = new World();
  await assert.rejects(world.client({ apiKey: SECRET, fetch }).whoami(), APIUserAbortError);
  assert.deepEqual([asked, world.slept], [1, []]);
});

const EVENTS =
  ': hello\ndata: {"a": 1}\nid: 7\n\nevent: tick\r\ndata: one\r\ndata:two\u2028\r\nretry: 5\r\n\r\ndata: lost';

test("a stream yields events, lines and bytes", async (t) => {
  const server = await serving(t);
  server.says({ body: EVENTS, headers: { "content-type": "text/event-stream" } });
  const stream = await clientOf(server).stream("GET", "/v1/events");
  assert.deepEqual(await drained(stream.iterEvents()), [
    { event: "message", data: '{"a": 1}', id: "7", retry: null },
    { event: "tick", data: "one\ntwo\u2028", id: "7", retry: 5 },
  ]);
  assert.deepEqual([stream.status, stream.requestId], [200, "req-1"]);
  assert.equal(stream.headers.get("content-type"), "text/event-stream");
  const lines = await drained((await clientOf(server).stream("GET", "/v1/events")).iterLines());
  assert.deepEqual(lines.slice(0, 3), [": hello", 'data: {"a": 1}', "id: 7"]);
  const chunks = await drained(await clientOf(server).stream("POST", "/v1/events", { json: {} }));
  assert.equal(Buffer.concat(chunks).toString(), EVENTS);
});

test("a stream is read while it arrives, and can be left and aborted", async (t) => {
  const [server, controller] = [await serving(t), new AbortController()];
  server.says({ body: "a", drips: true });
  const stream = await clientOf(server).stream("GET", "/v1/x", { signal: controller.signal });
  for await (const chunk of stream.iterBytes()) {
    assert.equal(chunk.length, 1);
    break;
  }
  assert.deepEqual(await drained(stream.iterBytes()), []);
  assert.equal(getEventListeners(controller.signal, "abort").length, 0);
  const aborted = await clientOf(server).stream("GET", "/v1/x", { signal: controller.signal });
  const reading = drained(aborted.iterBytes());
  controller.abort();
  await assert.rejects(reading, APIUserAbortError);
  const late = await clientOf(server, { timeout: 50 }).stream("GET", "/v1/x");
  await assert.rejects(drained(late.iterBytes()), APITimeoutError);
});

test("a stream is retried until it starts, and refused like any call", async (t) => {
  const server = await serving(t);
  server.says(BUSY, { body: "a\nb" });
  const stream = await clientOf(server).stream("GET", "/v1/x");
  assert.deepEqual([stream.response.attempts, await drained(stream.iterLines())], [2, ["a", "b"]]);
  server.says({ status: 403, body: { required_scopes: ["a"] } });
  await assert.rejects(clientOf(server).stream("GET", "/v1/x"), PermissionDeniedError);
  server.says({ body: "a\nb", cut: true });
  const cut = await clientOf(server).stream("GET", "/v1/x");
  await assert.rejects(drained(cut.iterLines()), APIConnectionError);
});

test("events do not depend on how the bytes are cut", () => {
  const bytes = new TextEncoder().encode("data: é\r\ndata\r\rid: 1\nevent: e\r\ndata: x\r\n\r\n");
  const parsed = (...chunks) => {
    const [lines, events] = [new LineSplitter(), new EventParser()];
    return [...chunks.flatMap((chunk) => [...lines.feed(chunk)]), ...lines.end()]
      .map((line) => events.feed(line))
      .filter(Boolean);
  };
  const whole = parsed(bytes);
  assert.equal(whole.length, 2);
  for (let cut = 0; cut <= bytes.length; cut += 1)
    assert.deepEqual(parsed(bytes.slice(0, cut), bytes.slice(cut)), whole);
});
