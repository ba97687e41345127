/** Pagination: lists, page by page or as a whole. */

import { InvalidResponseError } from "../errors.js";
import type { Call } from "../wire/call.js";
import { flag, items, ObjectParser, parseObject, record, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import type { Transport } from "../wire/transport.js";
import { Result } from "./result.js";

interface Identified {
  readonly id: string;
}

type After<T extends Identified> = (id: string) => Promise<Page<T>>;
type Read<T> = (members: Json, response: Response) => T;

/** A page of a list. Iterating yields its items and those of all following pages, fetched when needed. */
export class Page<T extends Identified> extends Result implements AsyncIterable<T> {
  /** The items of this page. */
  readonly data: readonly T[];
  /** Whether there is another page. */
  readonly hasMore: boolean;
  readonly #after: After<T>;

  /** @internal */
  constructor(parser: ObjectParser, response: Response, read: Read<T>, after: After<T>) {
    super(parser, response);
    parser.optional("object", (value) => value, null);
    this.data = parser.required("data", (value) => items(value).map((item) => read(record(item), response)));
    this.hasMore = parser.optional("has_more", flag, false);
    this.#after = after;
  }

  /** Return the next page, or `null` after the last one. */
  async nextPage(): Promise<Page<T> | null> {
    const last = this.data.at(-1)?.id;
    if (!this.hasMore || last === undefined) return null;
    return this.#after(last);
  }

  async *[Symbol.asyncIterator](): AsyncIterator<T> {
    for (let page: Page<T> | null = this; page !== null; page = await page.nextPage()) yield* page.data;
  }
}

/**
 * A list that is not fetched yet.
 *
 * `await` returns the first page. `for await` yields the items of all pages, fetched again by each loop.
 */
export class Listing<T extends Identified> implements PromiseLike<Page<T>>, AsyncIterable<T> {
  readonly #fetch: () => Promise<Page<T>>;
  #first: Promise<Page<T>> | null = null;

  /** @internal */
  constructor(fetch: () => Promise<Page<T>>) {
    this.#fetch = fetch;
  }

  /** Fetch the first page, as `await` does. */
  then<A = Page<T>, B = never>(
    onFulfilled?: ((page: Page<T>) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#first ??= this.#fetch();
    return this.#first.then(onFulfilled, onRejected);
  }

  /** Handle the error of the first page. */
  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<Page<T> | B> {
    return this.then(null, onRejected);
  }

  /** Do something when the first page has arrived or failed. */
  finally(onFinally?: (() => void) | null): Promise<Page<T>> {
    return this.then().finally(onFinally);
  }

  async *[Symbol.asyncIterator](): AsyncIterator<T> {
    yield* await this.#fetch();
  }
}

/**
 * Return the page in the response to *call*, its items parsed by *read*.
 *
 * *seen* are the last ids of the pages before it. Throw for a page that ends with one of them: it would never end.
 */
export async function fetchPage<T extends Identified>(
  transport: Transport,
  call: Call,
  read: Read<T>,
  seen: ReadonlySet<string> = new Set(),
): Promise<Page<T>> {
  const after = (id: string): Promise<Page<T>> =>
    fetchPage(transport, { ...call, query: { ...call.query, after: id } }, read, new Set([...seen, id]));
  const response = await transport.send(call);
  const page = parseObject(response, (members) => new Page(new ObjectParser(members), response, read, after));
  const last = page.data.at(-1)?.id;
  if (last !== undefined && seen.has(last)) {
    const message = `The page after ${JSON.stringify(last)} ends with it again: the list has no end.`;
    throw new InvalidResponseError(message, response);
  }
  return page;
}
