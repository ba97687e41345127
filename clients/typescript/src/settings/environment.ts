/** The runtime: environment variables, and whether it is a browser. */

/** User agents of servers that look like a browser's worker. */
const SERVERS_LIKE_WORKERS = /^(?:Cloudflare-Workers|Deno\/)/;

interface RuntimeGlobals {
  readonly process?: {
    readonly env?: Readonly<Record<string, string | undefined>>;
    readonly getBuiltinModule?: (name: string) => { readonly AsyncLocalStorage?: new () => AsyncContext } | undefined;
  };
  readonly window?: { readonly document?: unknown };
  readonly document?: unknown;
  readonly navigator?: { readonly userAgent?: string };
  readonly WorkerGlobalScope?: unknown;
}

/** Return the environment variable *name*, or `undefined` in a runtime without an environment. */
export function variable(name: string): string | undefined {
  try {
    return runtimeGlobals().process?.env?.[name];
  } catch {
    return undefined; // Deno without --allow-env
  }
}

/** What keeps a value for all that a function starts, as AsyncLocalStorage of Node.js, Deno and Bun does. */
export interface AsyncContext {
  run<T>(value: unknown, work: () => T): T;
  getStore(): unknown;
}

/** Return a new context, or `null` in a runtime without any, such as a browser. */
export function asyncContext(): AsyncContext | null {
  try {
    const module = runtimeGlobals().process?.getBuiltinModule?.("node:async_hooks");
    return module?.AsyncLocalStorage === undefined ? null : new module.AsyncLocalStorage();
  } catch {
    return null;
  }
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
