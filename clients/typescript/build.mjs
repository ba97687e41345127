/** Builds `dist`: ES modules, and CommonJS in `dist/cjs`. Installs the compiler first if it is not there. */

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(fileURLToPath(import.meta.url));
const run = (command, ...args) => execFileSync(command, args, { cwd: root, stdio: ["ignore", 2, 2] });

function compiler() {
  try {
    return join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
  } catch {
    return null;
  }
}

if (compiler() === null) {
  // `npm install <checkout>` links this folder and leaves its development dependencies out.
  const npm = process.env.npm_execpath;
  const args = ["ci", "--ignore-scripts", "--include=dev", "--no-audit", "--no-fund"];
  if (npm !== undefined && existsSync(npm)) run(process.execPath, npm, ...args);
  else run("npm", ...args);
}
rmSync(join(root, "dist"), { recursive: true, force: true });
run(process.execPath, compiler(), "--project", "tsconfig.json");
run(process.execPath, compiler(), "--project", "tsconfig.cjs.json");
mkdirSync(join(root, "dist", "cjs"), { recursive: true });
writeFileSync(join(root, "dist", "cjs", "package.json"), '{ "type": "commonjs" }\n');
