/** The runtime: environment variables, and whether it is a browser. */

/** User agents of servers that look like a browser's worker. */
const SERVERS_LIKE_WORKERS = /^(?:Cloudflare-Workers|Deno\/)/;

interface RuntimeGlobals {
  readonly process?: { readonly env?: Readonly<Record<string, string | undefined>> };
  readonly window?: { readonly document?: unknown };
  readonly document?: unknown;
  readonly navigator?: { readonly userAgent?: string };
  readonly WorkerGlobalScope?: unknown;
}

/** Return the environment variable *name*, or `undefined` in a runtime without an environment. */
export function variable(name: string): string | undefined {
  return runtimeGlobals().process?.env?.[name];
}

/** Return whether this is a page or its worker, whose memory every visitor can read. */
export function isBrowser(): boolean {
  const { window, document, WorkerGlobalScope, navigator } = runtimeGlobals();
  if (window !== undefined && (window.document ?? document) !== undefined) return true;
  return typeof WorkerGlobalScope === "function" && !SERVERS_LIKE_WORKERS.test(navigator?.userAgent ?? "");
}

function runtimeGlobals(): RuntimeGlobals {
  return globalThis as unknown as RuntimeGlobals;
}
