import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
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

test("CommonJS has the same names, and sources stand beside what was made of them", async () => {
  const [required, imported] = [createRequire(import.meta.url)("@machpay/sdk"), await import("@machpay/sdk")];
  assert.deepEqual(Object.keys(required).sort(), Object.keys(imported).sort());
  assert.equal(new required.MachPay({ accessToken: "t" }).withOptions({}).constructor.name, "MachPay");
  for (const path of ["index.js", "index.d.ts", "cjs/index.js", "cjs/index.d.ts"]) {
    const { sources } = JSON.parse(await read(`dist/${path}.map`));
    const folder = new URL(`dist/${path}`, ROOT);
    for (const source of sources) assert.ok(await readFile(new URL(source, folder), "utf8"), source);
  }
});

test("every public type and each of its members is documented", async () => {
  const names = new Set((await read("dist/index.d.ts")).match(/\b[A-Z]\w+\b/g));
  const [missing, documented] = [[], []];
  for (const path of await readdir(new URL("dist/", ROOT), { recursive: true })) {
    if (!path.endsWith(".d.ts") || path.startsWith("cjs/") || path === "index.d.ts") continue;
    const lines = (await read(`dist/${path}`)).split("\n");
    let type = "";
    lines.forEach((line, at) => {
      type = /^export .*?\b(?:class|interface|type) (\w+)/.exec(line)?.[1] ?? type;
      // Of what overrides a member, editors show the documentation of that member.
      const isMember = /^ {4}(?!#|private |constructor\(|toJSON\(|get extra\(|\[)[a-z_A-Z]/.test(line);
      if (!names.has(type) || !(isMember || /^export .*\b(?:class|interface|type) /.test(line))) return;
      (lines[at - 1].trim().endsWith("*/") ? documented : missing).push(`${path}: ${type}: ${line.trim()}`);
    });
  }
  assert.deepEqual(missing, []);
  assert.ok(documented.length > 350, String(documented.length));
});

test("nothing that is published needs Node.js", async () => {
  for (const path of await readdir(new URL("dist/", ROOT), { recursive: true })) {
    if (path.endsWith(".js") || path.endsWith(".d.ts")) {
      const required = path.startsWith("cjs/") ? /require\("(?!\.)/ : /require\(/; // its own modules
      assert.doesNotMatch(await read(`dist/${path}`), /from "node:|<reference|\bBuffer\b/, path);
      assert.doesNotMatch(await read(`dist/${path}`), required, path);
    }
  }
});
