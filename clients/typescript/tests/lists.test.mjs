import assert from "node:assert/strict";
import { test } from "node:test";

import { serving } from "./server.mjs";
import { clientOf, drained } from "./world.mjs";

function page(ids, hasMore) {
  const data = ids.map((id) => ({ id, name: id }));
  return { body: { object: "list", data, has_more: hasMore }, headers: { etag: '"list"' } };
}

test("a list is one page until it is iterated", async (t) => {
  const server = await serving(t);
  server.says(page(["a", "b"], true), page(["c"], true), page(["d"], false));
  const first = await clientOf(server).keys.list({ limit: 2, status: "active", environment: "live", after: "0" });
  assert.deepEqual([first.data.map((key) => key.id), first.hasMore, first.data[0].etag], [["a", "b"], true, null]);
  assert.deepEqual([first.requestId, first.rateLimit, first.extra], ["req-1", null, {}]);
  assert.equal(server.asked.length, 1);
  assert.deepEqual(
    (await drained(first)).map((key) => key.id),
    ["a", "b", "c", "d"],
  );
  const asked = server.asked.map(({ query }) => Object.fromEntries(new URLSearchParams(query)));
  const fixed = { limit: "2", status: "active", environment: "live" };
  assert.deepEqual(
    asked,
    ["0", "b", "c"].map((after) => ({ ...fixed, after })),
  );
});

test("a list can be iterated at once, and each time anew", async (t) => {
  const server = await serving(t);
  const listing = clientOf(server).keys.list();
  assert.equal(server.asked.length, 0); // nothing is asked for before it is wanted
  for (let time = 0; time < 2; time += 1) {
    server.says(page(["a"], true), page(["b"], false));
    assert.deepEqual(
      (await drained(listing)).map((key) => key.id),
      ["a", "b"],
    );
  }
});

test("a list is a promise of its first page, fetched once", async (t) => {
  const server = await serving(t);
  server.says(page(["a"], false));
  const listing = clientOf(server).keys.list();
  const pages = [await listing, await listing, await listing.finally(() => {}), await Promise.resolve(listing)];
  assert.equal(new Set(pages).size, 1);
  assert.equal(await pages[0].nextPage(), null);
  assert.equal(server.asked.length, 1);
  server.says({ status: 403 });
  assert.equal(
    await clientOf(server)
      .keys.list()
      .catch((error) => error.name),
    "PermissionDeniedError",
  );
});

test("an empty page ends a list whatever it says", async (t) => {
  const server = await serving(t);
  server.says(page([], true));
  assert.deepEqual(await drained(clientOf(server).keys.list()), []);
  assert.equal(server.asked.length, 1);
});

test("a server that repeats a page does not hold up forever", async (t) => {
  const server = await serving(t);
  server.says(page(["a"], true));
  await assert.rejects(drained(clientOf(server).keys.list()), {
    name: "InvalidResponseError",
    message: /ends with it/,
  });
  assert.equal(server.asked.length, 2);
});

for (const ids of ["aa", "aba", "abca", "abcdefghc"]) {
  test(`a cursor that returns to an earlier page ends with an error: ${ids}`, async (t) => {
    const server = await serving(t);
    server.says(...[...ids].map((id) => page([id], true)));
    await assert.rejects(drained(clientOf(server).keys.list()), {
      name: "InvalidResponseError",
      message: /has no end/,
    });
    assert.equal(server.asked.length, ids.length);
  });
}
