import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import * as machpay from "../dist/index.js";
import { Response } from "../dist/wire/response.js";
import { errorFor } from "../dist/wire/success.js";

function answer(status, problem = {}, headers = {}) {
  const body = typeof problem === "string" ? problem : JSON.stringify(problem);
  return new Response({ status, headers: new Headers(headers), body, attempts: 1, receivedAt: 0 });
}

for (const [status, name] of [
  [302, "APIStatusError"],
  [400, "BadRequestError"],
  [401, "AuthenticationError"],
  [402, "APIStatusError"],
  [403, "PermissionDeniedError"],
  [404, "NotFoundError"],
  [409, "ConflictError"],
  [412, "PreconditionFailedError"],
  [422, "UnprocessableEntityError"],
  [429, "RateLimitError"],
  [500, "InternalServerError"],
  [503, "InternalServerError"],
  [599, "InternalServerError"],
]) {
  test(`${status} is a ${name}`, () => {
    const error = errorFor(answer(status));
    assert.equal(error.constructor, machpay[name]);
    assert.equal(error.name, name);
    assert.ok(error.stack.startsWith(`${name}: ${status} `));
    assert.ok(error instanceof machpay.MachPayError && error instanceof Error);
  });
}

for (const [status, code, name] of [
  [409, "key_limit_reached", "KeyLimitError"],
  [409, "conflict", "ConflictError"],
  [409, ["key_limit_reached"], "ConflictError"],
  [403, "key_limit_reached", "PermissionDeniedError"],
]) {
  test(`${status} ${code} is a ${name}`, () => {
    const error = errorFor(answer(status, { title: "Too many keys", code }));
    assert.deepEqual([error.constructor, error.name], [machpay[name], name]);
    assert.equal(error instanceof machpay.ConflictError, status === 409);
  });
}

const PROBLEM = {
  type: "https://docs.machpay.xyz/problems/insufficient_scope",
  title: "Insufficient scope",
  status: 403,
  detail: "The credentials lack a scope that this needs.",
  code: "insufficient_scope",
  request_id: "req-9",
  required_scopes: ["keys:manage"],
};

test("an error carries what the problem says", () => {
  const error = errorFor(answer(403, PROBLEM, { "x-request-id": "req-9", ratelimit: '"minute";r=1' }));
  const { type, title, detail, code } = PROBLEM;
  assert.deepEqual([error.type, error.title, error.detail, error.code], [type, title, detail, code]);
  assert.deepEqual([error.status, error.requestId, error.requiredScopes], [403, "req-9", ["keys:manage"]]);
  assert.equal(error.headers.get("X-Request-Id"), "req-9");
  assert.equal(error.rateLimit.get("minute").remaining, 1);
});

for (const [response, expected] of [
  [answer(403, PROBLEM), `403 Insufficient scope. ${PROBLEM.detail} Required: keys:manage. (request req-9)`],
  [answer(502, "<html>\n<h1>nope</h1>"), "502 Bad Gateway."],
  [answer(404, "[1, 2]", { "x-request-id": "r" }), "404 Not Found. (request r)"],
  [answer(499), "499 Unknown status."],
  [answer(400, { title: "Bad", detail: "two\nlines\u001b[31m" }), "400 Bad. two lines [31m."],
  [answer(400, { title: "Bad", detail: 7 }), "400 Bad."],
  [answer(429, { title: "Slow down" }, { "retry-after": "12" }), "429 Slow down. Retry in 12 s."],
  [
    answer(422, { title: "Invalid", errors: [{ place: "name", reason: "too long" }, 1] }),
    "422 Invalid. name: too long.",
  ],
  [answer(400, { title: "x".repeat(999) }), `400 ${"x".repeat(300)}…`],
]) {
  test(`a message is one helpful line: ${expected.slice(0, 60)}`, () => {
    assert.equal(errorFor(response).message, expected);
  });
}

test("validation errors tell place and reason", () => {
  const { errors } = errorFor(answer(422, { errors: [{ place: "name", reason: "too long" }, "junk"] }));
  assert.deepEqual(errors, [{ place: "name", reason: "too long" }]);
});

for (const [problem, headers, expected] of [
  [{ retry_after: 5 }, { "retry-after": "12" }, 12], // the header is what the retries went by
  [{ retry_after: 5 }, {}, 5],
  [{ retry_after: "5" }, {}, null],
  [{}, {}, null],
]) {
  test(`a rate limit error tells when to ask again: ${JSON.stringify([problem, headers])}`, () => {
    const error = errorFor(answer(429, { ...problem, violated_policies: ["minute"] }, headers));
    assert.deepEqual([error.retryAfter, error.violatedPolicies], [expected, ["minute"]]);
  });
}

test("the tree that is drawn is the tree in the code", async () => {
  const source = await readFile(new URL("../src/errors.ts", import.meta.url), "utf8");
  const drawn = [...source.matchAll(/^ \* ( *)[*x+] (\w+)/gm)].map(([, indent, name]) => [name, indent.length / 2]);
  const depth = (name) => {
    let count = -1; // MachPayError itself extends Error
    for (let kind = machpay[name]; kind !== Error; kind = Object.getPrototypeOf(kind)) count += 1;
    return count;
  };
  assert.deepEqual(
    drawn,
    drawn.map(([name]) => [name, depth(name)]),
  );
  const classes = Object.keys(machpay).filter((name) => name.endsWith("Error"));
  assert.deepEqual(drawn.map(([name]) => name).sort(), classes.sort());
});
