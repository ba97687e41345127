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

type Read<T> = (members: Json, response: Response) => T;

/** A page of a list. Iterating yields its items and those of all following pages, fetched when needed. */
export class Page<T extends Identified> extends Result implements AsyncIterable<T> {
  readonly data: readonly T[];
  readonly hasMore: boolean;
  readonly #after: (id: string) => Promise<Page<T>>;

  /** @internal */
  constructor(parser: ObjectParser, response: Response, read: Read<T>, after: (id: string) => Promise<Page<T>>) {
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
    const page = await this.#after(last);
    if (page.data.at(-1)?.id === last) {
      throw new InvalidResponseError(`The page after ${JSON.stringify(last)} ends with it again.`, page.response);
    }
    return page;
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

  then<A = Page<T>, B = never>(
    onFulfilled?: ((page: Page<T>) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#first ??= this.#fetch();
    return this.#first.then(onFulfilled, onRejected);
  }

  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<Page<T> | B> {
    return this.then(null, onRejected);
  }

  finally(onFinally?: (() => void) | null): Promise<Page<T>> {
    return this.then().finally(onFinally);
  }

  async *[Symbol.asyncIterator](): AsyncIterator<T> {
    yield* await this.#fetch();
  }
}

/** Return the page in the response to *call*, its items parsed by *read*. */
export async function fetchPage<T extends Identified>(
  transport: Transport,
  call: Call,
  read: Read<T>,
): Promise<Page<T>> {
  const after = (id: string): Promise<Page<T>> =>
    fetchPage(transport, { ...call, query: { ...call.query, after: id } }, read);
  const response = await transport.send(call);
  return parseObject(response, (members) => new Page(new ObjectParser(members), response, read, after));
}
