/** Lists, a page at a time or as a whole. */

import { InvalidResponseError } from "../errors.js";
import type { Call } from "../wire/call.js";
import { flag, items, Members, readObject, record, type Json } from "../wire/reading.js";
import type { Response } from "../wire/response.js";
import type { Transport } from "../wire/transport.js";
import { Received } from "./received.js";

interface Identified {
  readonly id: string;
}

type Read<T> = (members: Json, response: Response) => T;

/** A part of a list. To iterate goes through all that follows, fetching page after page. */
export class Page<T extends Identified> extends Received implements AsyncIterable<T> {
  readonly data: readonly T[];
  readonly hasMore: boolean;
  readonly #after: (id: string) => Promise<Page<T>>;

  /** @internal */
  constructor(of: Members, response: Response, read: Read<T>, after: (id: string) => Promise<Page<T>>) {
    super(of, response);
    of.optional("object", (value) => value, null);
    this.data = of.required("data", (value) => items(value).map((item) => read(record(item), response)));
    this.hasMore = of.optional("has_more", flag, false);
    this.#after = after;
  }

  /** Return the page that follows, `null` after the last. */
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
 * A list that is asked for and not yet fetched.
 *
 * `await` gives the first page, `for await` the items of all of them, from anew each time.
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

/** Return the page that *call* asks for, its items made by *read*. */
export async function fetchPage<T extends Identified>(
  transport: Transport,
  call: Call,
  read: Read<T>,
): Promise<Page<T>> {
  const after = (id: string): Promise<Page<T>> =>
    fetchPage(transport, { ...call, query: { ...call.query, after: id } }, read);
  const response = await transport.send(call);
  return readObject(response, (members) => new Page(new Members(members), response, read, after));
}
