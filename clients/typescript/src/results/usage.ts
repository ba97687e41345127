/** What a key was used for, as the API tells of it. */

import { counts, items, Members, moment, number, record, text, whole, type Json } from "../wire/reading.js";
import type { Response } from "../wire/response.js";
import { Received } from "./received.js";

/** How long requests took, in milliseconds; `null` where there were none. All but the mean are estimates. */
export interface Latency {
  readonly mean: number | null;
  readonly p50: number | null;
  readonly p95: number | null;
  readonly p99: number | null;
}

/** Requests, and what became of them. Of a total `start` is `null`, and of a bucket `routes` is empty. */
export interface UsageCounts {
  readonly start: Date | null;
  readonly requests: number;
  readonly allowed: number;
  readonly refused: number;
  readonly outcomes: Readonly<Record<string, number>>;
  readonly statuses: Readonly<Record<string, number>>;
  readonly routes: Readonly<Record<string, number>>;
  readonly latencyMs: Latency;
  readonly extra: Readonly<Record<string, unknown>>;
}

/** The use of a key from `start` to `end`. `data` has the buckets in which there was any, oldest first. */
export class Usage extends Received {
  readonly keyId: string;
  readonly bucket: string | null;
  readonly start: Date | null;
  readonly end: Date | null;
  readonly data: readonly UsageCounts[];
  readonly total: UsageCounts;

  /** @internal */
  constructor(of: Members, response: Response) {
    super(of, response);
    of.optional("object", text, null);
    this.keyId = of.required("key_id", text);
    this.bucket = of.optional("bucket", text, null);
    this.start = of.optional("from", moment, null);
    this.end = of.optional("to", moment, null);
    this.data = of.optional("data", (value) => items(value).map(countsFrom), []);
    this.total = of.optional("total", countsFrom, countsFrom({}));
  }
}

/** Return the usage that *response* tells of. */
export function usageFrom(members: Json, response: Response): Usage {
  return new Usage(new Members(members), response);
}

function countsFrom(value: unknown): UsageCounts {
  const of = new Members(record(value));
  return {
    start: of.optional("start", moment, null),
    requests: of.optional("requests", whole, 0),
    allowed: of.optional("allowed", whole, 0),
    refused: of.optional("refused", whole, 0),
    outcomes: of.optional("outcomes", counts, {}),
    statuses: of.optional("statuses", counts, {}),
    routes: of.optional("routes", counts, {}),
    latencyMs: of.optional("latency_ms", latencyFrom, latencyFrom({})),
    extra: of.rest(),
  };
}

function latencyFrom(value: unknown): Latency {
  const of = new Members(record(value));
  return {
    mean: of.optional("mean", number, null),
    p50: of.optional("p50", number, null),
    p95: of.optional("p95", number, null),
    p99: of.optional("p99", number, null),
  };
}
