import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";

import { VERSION } from "@machpay/sdk";

const ROOT = new URL("../", import.meta.url);
const read = (path) => readFile(new URL(path, ROOT), "utf8");

test("the version is one", async () => {
  const [project, lock] = (await Promise.all([read("package.json"), read("package-lock.json")])).map(JSON.parse);
  assert.deepEqual([project.version, lock.version], [VERSION, VERSION]);
});

test("nothing else is installed with it", async () => {
  const project = JSON.parse(await read("package.json"));
  const kinds = Object.keys(project).filter((name) => /dependencies/i.test(name));
  assert.deepEqual(kinds, ["devDependencies"]);
});

test("the lock says what each package contains, and not where it comes from", async () => {
  const lock = await read("package-lock.json");
  assert.doesNotMatch(lock, /"resolved"|https?:/);
  const { "": own, ...others } = JSON.parse(lock).packages;
  assert.ok(own && Object.values(others).every(({ integrity }) => integrity.startsWith("sha512-")));
});

test("nothing that is published needs Node.js", async () => {
  for (const path of await readdir(new URL("dist/", ROOT), { recursive: true })) {
    if (path.endsWith(".js") || path.endsWith(".d.ts")) {
      assert.doesNotMatch(await read(`dist/${path}`), /from "node:|require\(|<reference|\bBuffer\b/, path);
    }
  }
});
