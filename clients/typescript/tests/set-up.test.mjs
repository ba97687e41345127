import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { inspect } from "node:util";

import { ConfigurationError, MachPay } from "../dist/index.js";
import { masked } from "../dist/settings/credential.js";
import { serving } from "./server.mjs";
import { clientOf, MASKED, SECRET, World } from "./world.mjs";

afterEach(() => {
  for (const name of ["MACHPAY_API_KEY", "MACHPAY_BASE_URL", "MACHPAY_AUTH_URL"]) delete process.env[name];
  for (const name of ["window", "document", "WorkerGlobalScope"]) delete globalThis[name];
});

const refused = (options, message) =>
  assert.throws(() => new MachPay(options), { name: "ConfigurationError", message });

test("of a credential there is shown what tells it apart, and of a short one nothing", () => {
  const shown = [SECRET, `sk_test_${"x".repeat(20)}wxyz`, `acme_live_${"x".repeat(20)}wxyz`, "sk_live_abc123...", `${"a".repeat(40)}last`, "short", ""];
  assert.deepEqual(shown.map(masked), [MASKED, "sk_test_…wxyz", "acme_live_…wxyz", "sk_live_…", "…last", "…", "…"]);
});

test("a client picks key and address up from the environment", async (t) => {
  const server = await serving(t);
  process.env.MACHPAY_API_KEY = SECRET;
  process.env.MACHPAY_BASE_URL = server.url;
  const client = new MachPay();
  await client.whoami();
  assert.equal(server.last.headers.authorization, `Bearer ${SECRET}`);
  assert.equal(inspect(client), `MachPay { credential: '${MASKED}', baseUrl: '${server.url}' }`);
});

test("what is passed beats the environment", async (t) => {
  const server = await serving(t);
  process.env.MACHPAY_API_KEY = "from-the-environment";
  process.env.MACHPAY_BASE_URL = "https://sandbox.example.com";
  await clientOf(server).whoami();
  await new MachPay({ accessToken: "token-1", baseUrl: server.url }).whoami();
  assert.deepEqual(
    server.asked.map((asked) => asked.headers.authorization),
    [`Bearer ${SECRET}`, "Bearer token-1"],
  );
});

test("two credentials are one too many", () => {
  refused({ apiKey: "k", accessToken: "t" }, "Both apiKey and accessToken are given; pass the one to be used.");
  refused({ apiKey: "k", refreshToken: "r", clientId: "c" }, /^Both apiKey and refreshToken/);
});

test("a credential that was meant and is not there is told, and the environment's key is not used for it", () => {
  process.env.MACHPAY_API_KEY = SECRET;
  refused({ accessToken: undefined }, "accessToken is undefined, and has to be a string.");
  refused({ apiKey: undefined }, "apiKey is undefined, and has to be a string.");
  refused({ accessToken: null }, "accessToken is null, and has to be a string.");
});

test("a client without a credential is for OAuth, and the first other call names the variable", async () => {
  const client = new MachPay();
  assert.ok((await client.oauth.authorizationUrl({ clientId: "c", redirectUri: "https://a.example" })).url);
  const error = { name: "ConfigurationError", message: /MACHPAY_API_KEY/ };
  await assert.rejects(client.whoami(), error);
  await assert.rejects(client.skills.execute({ skillId: "a", input: {} }), error);
  await assert.rejects(async () => await client.keys.list(), error);
  process.env.MACHPAY_API_KEY = "";
  await assert.rejects(new MachPay().account.retrieve(), error);
  assert.equal(inspect(client), "MachPay { credential: null, baseUrl: 'https://api.machpay.xyz' }");
});

test("a credential that cannot be sent is refused without showing it", () => {
  refused({ apiKey: "" }, "apiKey is empty.");
  refused({ apiKey: 7 }, "apiKey is of type number, and has to be a string.");
  refused({ accessToken: "hiddén" }, /^accessToken contains white space[^d]*$/);
  process.env.MACHPAY_API_KEY = "hidden\n";
  refused({}, /^MACHPAY_API_KEY contains(?!.*hidden)/);
});

test("an option that does not exist is refused, and so is what is no options", () => {
  refused({ api_key: "k" }, /^There is no option "api_key"; there are: apiKey, accessToken,/);
  refused("k", /write new MachPay\(\{ apiKey: … \}\)/);
  assert.throws(() => new MachPay().withOptions({ apiKey: "k" }), /There is no option "apiKey"/);
});

for (const url of [
  "https://api.example.com",
  "https://api.example.com:8443/gateway",
  "http://localhost:8000",
  "http://127.0.0.1",
  "http://127.255.0.9:1",
  "http://[::1]:8000",
]) {
  test(`${url} keeps the credential safe and is accepted`, () => {
    assert.equal(new MachPay({ baseUrl: `${url}/` }).toJSON().baseUrl, url);
  });
}

for (const url of [
  "http://api.example.com",
  "http://localhost.example.com",
  "http://127.0.0.1.example.com",
  "http://10.0.0.1",
  "http://0.0.0.0",
  "http://[2001:db8::1]",
  "https://user:pass@api.example.com",
  "http://localhost@evil.example.com",
  "http://localhost:80@evil.example.com",
  "https://api.example.com/?a=b",
  "https://api.example.com/#a",
  "ftp://api.example.com",
  "api.example.com",
  "https://",
  "https://[::1",
  "",
  7,
]) {
  test(`${JSON.stringify(url)} does not, or is no address, and is refused`, () => {
    refused({ baseUrl: url }, /^baseUrl (?!.*pass@)/);
    refused({ authUrl: url }, /^authUrl (?!.*pass@)/);
  });
}

test("a timeout is a positive number that a timer can hold", () => {
  for (const timeout of [0, -1, Infinity, NaN, true, "30", 2 ** 31]) refused({ timeout }, /^timeout: /);
});

test("a number of retries is a whole number", () => {
  for (const maxRetries of [-1, 1.5, true, "2"]) refused({ maxRetries }, /^maxRetries: /);
});

test("what sends has to be a function, and so has what stores tokens", () => {
  refused({ fetch: "fetch" }, /^fetch is of type string/);
  refused({ refreshToken: "r", clientId: "c", onTokens: 1 }, /^onTokens is of type number/);
});

test("a refresh token needs to know for which application it is", () => {
  refused({ refreshToken: "r" }, "refreshToken is given without clientId; pass both.");
});

test("the authorization server is where it is said to be, else where the API is, else MachPay's", async () => {
  const server = async (options) => {
    const { url } = await new MachPay(options).oauth.authorizationUrl({ clientId: "c", redirectUri: "https://a" });
    return url.slice(0, url.indexOf("/oauth/authorize"));
  };
  assert.equal(await server({}), "https://auth.machpay.xyz");
  assert.equal(await server({ baseUrl: "https://one.example" }), "https://one.example");
  process.env.MACHPAY_BASE_URL = "https://two.example";
  assert.equal(await server({}), "https://two.example");
  process.env.MACHPAY_AUTH_URL = "https://three.example/auth";
  assert.equal(await server({ baseUrl: "https://one.example" }), "https://three.example/auth");
  assert.equal(await server({ authUrl: "https://four.example" }), "https://four.example");
});

const PLACES = {
  "a page": { window: { document: {} }, document: {} },
  "a page's worker": { WorkerGlobalScope: class {} },
};

for (const [place, names] of Object.entries(PLACES)) {
  test(`in ${place} a secret is refused, with the way out`, async (t) => {
    const server = await serving(t);
    Object.assign(globalThis, names);
    const wayOut = /everybody who opens this page could read.*accessToken/;
    refused({ apiKey: SECRET }, wayOut);
    refused({ apiKey: "not even a key" }, wayOut);
    refused({ accessToken: SECRET }, wayOut);
    refused({ clientSecret: "hidden", clientId: "c" }, wayOut);
    process.env.MACHPAY_API_KEY = SECRET;
    refused({}, wayOut);
    const client = new MachPay({ accessToken: "token-1", baseUrl: server.url });
    const params = { refreshToken: "r", clientId: "c", clientSecret: "hidden" };
    await assert.rejects(client.oauth.refreshToken(params), { name: "ConfigurationError", message: wayOut });
    assert.equal(server.asked.length, 0);
  });

  test(`in ${place} an access token works, without cookies and without a name of one's own`, async (t) => {
    const server = await serving(t);
    Object.assign(globalThis, names);
    const sent = [];
    const fetched = (url, init) => (sent.push(init), fetch(url, init));
    await new World().client({ accessToken: "token-1", baseUrl: server.url, fetch: fetched }).whoami();
    assert.equal(server.last.headers.authorization, "Bearer token-1");
    assert.equal(sent[0].credentials, "omit");
    assert.equal("User-Agent" in sent[0].headers, false);
  });
}

test("a server that looks like a browser's worker may hold secrets", (t) => {
  globalThis.WorkerGlobalScope = class {};
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  t.after(() => (before ? Object.defineProperty(globalThis, "navigator", before) : delete globalThis.navigator));
  Object.defineProperty(globalThis, "navigator", { value: { userAgent: "Cloudflare-Workers" }, configurable: true });
  assert.doesNotThrow(() => new MachPay({ apiKey: SECRET }));
});

test("a wrong set-up is an error of its own kind", () => {
  assert.throws(() => new MachPay({ apiKey: "" }), ConfigurationError);
});

test("an explicit option lets a test in jsdom, or a trusted runtime, through", async (t) => {
  const server = await serving(t);
  globalThis.window = { document: {} };
  globalThis.document = {};
  const given = { apiKey: SECRET, clientSecret: "s", baseUrl: server.url };
  refused(given, /dangerouslyAllowBrowser: true/);
  const client = new MachPay({ ...given, dangerouslyAllowBrowser: true });
  await client.whoami();
  assert.equal(server.last.headers.authorization, `Bearer ${SECRET}`);
  server.says({ body: { access_token: "a" } });
  await client.oauth.refreshToken({ refreshToken: "r", clientId: "a", clientSecret: "s" });
  assert.match(server.last.headers.authorization, /^Basic /);
  process.env.MACHPAY_API_KEY = SECRET;
  assert.ok(new MachPay({ dangerouslyAllowBrowser: true }));
});

test("a runtime that refuses its environment, as Deno does without --allow-env, has none", () => {
  const { env } = process;
  Object.defineProperty(process, "env", {
    configurable: true,
    get() {
      throw new Error('Requires env access to "MACHPAY_API_KEY", run again with the --allow-env flag');
    },
  });
  try {
    assert.equal(
      inspect(new MachPay({ accessToken: "t" })),
      "MachPay { credential: '…', baseUrl: 'https://api.machpay.xyz' }",
    );
  } finally {
    Object.defineProperty(process, "env", { configurable: true, writable: true, value: env });
  }
});
