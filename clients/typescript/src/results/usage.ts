/** The usage of a key, as returned by the API. */

import { counts, items, ObjectParser, moment, number, record, text, whole, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import { Result } from "./result.js";

/** How long requests took, in milliseconds; `null` if there were none. All values but the mean are estimates. */
export interface Latency {
  /** The mean. */
  readonly mean: number | null;
  /** The median. */
  readonly p50: number | null;
  /** What 95 % of the requests stay below. */
  readonly p95: number | null;
  /** What 99 % of the requests stay below. */
  readonly p99: number | null;
}

/** Requests by outcome and status. A total has no `start`, and a bucket no `routes`. */
export interface UsageCounts {
  /** When the bucket starts. */
  readonly start: Date | null;
  /** All requests. */
  readonly requests: number;
  /** Those that were admitted. */
  readonly allowed: number;
  /** Those that were refused. */
  readonly refused: number;
  /** Their number by outcome. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** Their number by status. */
  readonly statuses: Readonly<Record<string, number>>;
  /** Their number by route. */
  readonly routes: Readonly<Record<string, number>>;
  /** How long they took. */
  readonly latencyMs: Latency;
  /** Members that only newer servers send, unparsed. */
  readonly extra: Readonly<Record<string, unknown>>;
}

/** The usage of a key from `start` to `end`. `data` has the buckets with requests, oldest first. */
export class Usage extends Result {
  /** The id of the key. */
  readonly keyId: string;
  /** `minute`, `hour` or `day`. */
  readonly bucket: string | null;
  /** When the report starts. */
  readonly start: Date | null;
  /** When the report ends. */
  readonly end: Date | null;
  /** The buckets with requests, oldest first. */
  readonly data: readonly UsageCounts[];
  /** All buckets together. */
  readonly total: UsageCounts;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    parser.optional("object", text, null);
    this.keyId = parser.required("key_id", text);
    this.bucket = parser.optional("bucket", text, null);
    this.start = parser.optional("from", moment, null);
    this.end = parser.optional("to", moment, null);
    this.data = parser.optional("data", (value) => items(value).map(countsFrom), []);
    this.total = parser.optional("total", countsFrom, countsFrom({}));
  }
}

/** Return the usage in *response*. */
export function usageFrom(members: Json, response: Response): Usage {
  return new Usage(new ObjectParser(members), response);
}

function countsFrom(value: unknown): UsageCounts {
  const parser = new ObjectParser(record(value));
  return {
    start: parser.optional("start", moment, null),
    requests: parser.optional("requests", whole, 0),
    allowed: parser.optional("allowed", whole, 0),
    refused: parser.optional("refused", whole, 0),
    outcomes: parser.optional("outcomes", counts, {}),
    statuses: parser.optional("statuses", counts, {}),
    routes: parser.optional("routes", counts, {}),
    latencyMs: parser.optional("latency_ms", latencyFrom, latencyFrom({})),
    extra: parser.rest(),
  };
}

function latencyFrom(value: unknown): Latency {
  const parser = new ObjectParser(record(value));
  return {
    mean: parser.optional("mean", number, null),
    p50: parser.optional("p50", number, null),
    p95: parser.optional("p95", number, null),
    p99: parser.optional("p99", number, null),
  };
}
