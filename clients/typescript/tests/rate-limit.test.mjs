import assert from "node:assert/strict";
import { test } from "node:test";

import { rateLimitFrom } from "../dist/wire/rate-limit.js";
import { Response } from "../dist/wire/response.js";

test("rate limits are put together by name", () => {
  const limit = rateLimitFrom(
    '"minute";q=1000;w=60, "concurrency";q=50;qu="concurrent-requests"',
    '"minute";r=742;t=12, "concurrency";r=47',
  );
  const minute = { name: "minute", quota: 1000, windowSeconds: 60, unit: "requests", remaining: 742, resetSeconds: 12 };
  const slots = { quota: 50, windowSeconds: null, unit: "concurrent-requests", remaining: 47, resetSeconds: null };
  assert.deepEqual(limit.policies, [minute, { name: "concurrency", ...slots }]);
  assert.deepEqual([...limit], limit.policies);
  assert.equal(limit.get("day"), undefined);
});

for (const raw of [
  ...[null, "", "  ", '"minute', '"minute";r=', '"a",', '"a" "b"', ',"a"', '"a";R=1', "1;r=2", "é;r=1", '("a");r=1'],
]) {
  test(`a rate limit that is malformed is none: ${raw}`, () => {
    assert.equal(rateLimitFrom(null, raw), null);
  });
}

for (const [raw, name, remaining] of [
  ['"a";r=1;x;y=?1;z=:YQ==:;d=1.5;s="q\\"";k=tok', "a", 1],
  ["a;r=5", "a", 5],
  ['"a\\"b";r=1', 'a"b', 1],
  ['"a";r=1.5', "a", null],
  ['"a";r="1"', "a", null],
  ['"a";r=1;r=2', "a", 2], // RFC 9651: the last one counts
]) {
  test(`parameters that mean nothing here are passed over: ${raw}`, () => {
    assert.equal(rateLimitFrom(null, raw).get(name).remaining, remaining);
  });
}

const NOW = Date.parse("2026-11-24T14:00:00Z");
const http = (milliseconds) => new Date(milliseconds).toUTCString();

for (const [retryAfter, date, expected] of [
  ["12", null, 12],
  ["0", null, 0],
  [http(NOW + 9_000), null, 9],
  [http(NOW + 3_600_000), http(NOW + 3_540_000), 60],
  [http(NOW - 9_000), null, 0],
  ["1.5", null, null],
  ["-1", null, null],
  ["soon", null, null],
  ["2026-11-24", null, null],
  ["", null, null],
]) {
  test(`Retry-After is read in both forms: "${retryAfter}", Date ${date}`, () => {
    const headers = new Headers({ "retry-after": retryAfter, ...(date === null ? {} : { date }) });
    const response = new Response({ status: 429, headers, body: "", attempts: 1, receivedAt: NOW });
    assert.equal(response.retryAfter, expected);
  });
}
