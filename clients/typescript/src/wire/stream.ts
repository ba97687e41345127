/** A response that is read while it arrives. */

import { APIUserAbortError } from "../errors.js";
import { EventParser, LineSplitter, type ServerSentEvent } from "./server-sent-events.js";
import type { RateLimit } from "./rate-limit.js";
import type { Response } from "./response.js";
import { failedAttempt, timedOut } from "./retry.js";
import { SafeOutput } from "./safe-output.js";

/** What a stream must know of its request. */
export interface StreamRequest {
  readonly method: string;
  readonly origin: string;
  readonly path: string;
  readonly signal?: AbortSignal | null | undefined;
}

/** An open response. Read it to its end, or close it: it holds a connection. */
export class Stream extends SafeOutput implements AsyncIterable<Uint8Array> {
  /** The response: status and headers, and no body. */
  readonly response: Response;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | null;
  readonly #controller: AbortController;
  readonly #timeout: number;
  readonly #request: StreamRequest;
  #isClosed = false;

  /** @internal */
  constructor(
    response: Response,
    body: ReadableStream<Uint8Array> | null,
    controller: AbortController,
    timeout: number,
    request: StreamRequest,
  ) {
    super();
    this.response = response;
    this.#reader = body?.getReader() ?? null;
    this.#controller = controller;
    this.#timeout = timeout;
    this.#request = request;
  }

  /** The HTTP status. */
  get status(): number {
    return this.response.status;
  }

  /** The headers of the response. */
  get headers(): Headers {
    return this.response.headers;
  }

  /** The server's id of the request, for questions to support. */
  get requestId(): string | null {
    return this.response.requestId;
  }

  /** The limits that the request counted against. */
  get rateLimit(): RateLimit | null {
    return this.response.rateLimit;
  }

  /** Yield the body in chunks as they arrive. Throw an APIConnectionError if it breaks off. */
  async *iterBytes(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (;;) {
        const { done, value } = await this.#read();
        if (done || value === undefined) return;
        yield value;
      }
    } finally {
      this.close();
    }
  }

  /** Yield the lines of the body, without their ends. */
  async *iterLines(): AsyncGenerator<string, void, undefined> {
    const lines = new LineSplitter();
    for await (const chunk of this.iterBytes()) yield* lines.feed(chunk);
    yield* lines.end();
  }

  /** Yield the events of a `text/event-stream`. */
  async *iterEvents(): AsyncGenerator<ServerSentEvent, void, undefined> {
    const events = new EventParser();
    for await (const line of this.iterLines()) {
      const event = events.feed(line);
      if (event !== null) yield event;
    }
  }

  /** Yield the body in chunks, as `iterBytes` does. */
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return this.iterBytes();
  }

  /** Release the connection. What has not arrived yet is dropped. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#reader?.cancel().catch(() => undefined);
    this.#controller.abort();
  }

  override toJSON(): object {
    return { response: this.response };
  }

  /** Return the next chunk. A pause of more than the timeout ends the stream. */
  async #read(): Promise<{ done: boolean; value?: Uint8Array | undefined }> {
    if (this.#reader === null || this.#isClosed) return { done: true };
    const { method, path, origin, signal } = this.#request;
    const what = `${method} ${path} at ${origin}`;
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#controller.abort();
    }, this.#timeout);
    try {
      return await this.#reader.read();
    } catch (cause) {
      if (isLate) throw timedOut(what).error;
      if (signal?.aborted) throw new APIUserAbortError(signal.reason);
      if (cause instanceof Error && cause.name === "AbortError") throw new APIUserAbortError(cause);
      throw failedAttempt(what, cause).error;
    } finally {
      clearTimeout(timer);
    }
  }
}
