/** Where this runs: what the environment says, and whether strangers can read what is in memory. */

/** The servers that look like a browser's worker, by the name that they give themselves. */
const SERVERS_LIKE_WORKERS = /^(?:Cloudflare-Workers|Deno\/)/;

interface Surroundings {
  readonly process?: { readonly env?: Readonly<Record<string, string | undefined>> };
  readonly window?: { readonly document?: unknown };
  readonly document?: unknown;
  readonly navigator?: { readonly userAgent?: string };
  readonly WorkerGlobalScope?: unknown;
}

/** Return the environment variable *name*; where there is no environment there are no variables. */
export function variable(name: string): string | undefined {
  return surroundings().process?.env?.[name];
}

/** Return whether this is a page, or a page's worker: whoever opens it can read everything in it. */
export function isBrowser(): boolean {
  const { window, document, WorkerGlobalScope, navigator } = surroundings();
  if (window !== undefined && (window.document ?? document) !== undefined) return true;
  return typeof WorkerGlobalScope === "function" && !SERVERS_LIKE_WORKERS.test(navigator?.userAgent ?? "");
}

function surroundings(): Surroundings {
  return globalThis as unknown as Surroundings;
}
