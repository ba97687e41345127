/** The side effects of a client other than the network: clocks and randomness, which tests replace. */

/** Clocks in milliseconds, `now` since the epoch; `draw` returns from [0, 1). `sleep` ends early with its signal. */
export interface Effects {
  readonly now: () => number;
  readonly monotonic: () => number;
  readonly draw: () => number;
  readonly sleep: (milliseconds: number, signal?: AbortSignal | null) => Promise<void>;
  readonly newIdempotencyKey: () => string;
}

/** The effects of the runtime. */
export const DEFAULT_EFFECTS: Effects = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  draw: () => Math.random(),
  sleep,
  newIdempotencyKey: uuid,
};

function sleep(milliseconds: number, signal?: AbortSignal | null): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal?.addEventListener("abort", end, { once: true });
  });
}

/** Return a UUID of version 4 (RFC 9562 §5.4). `crypto.randomUUID` is missing in pages of `http://` origins. */
export function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
