/** Lines and server-sent events in a body of bytes (HTML Living Standard, §9.2.6). */

/** An event of a stream. */
export interface ServerSentEvent {
  /** Its type, by default `message`. */
  readonly event: string;
  /** Its data, often JSON. */
  readonly data: string;
  /** The last id that the stream has sent. */
  readonly id: string | null;
  /** The milliseconds to wait before reconnecting. */
  readonly retry: number | null;
}

/** Splits chunks of bytes into lines, wherever the chunks end. */
export class LineSplitter {
  readonly #decoder = new TextDecoder();
  #rest = "";

  /** Yield the lines that end in *chunk*. */
  *feed(chunk: Uint8Array): Generator<string, void, undefined> {
    yield* this.#lines(this.#decoder.decode(chunk, { stream: true }));
  }

  /** Yield the last line, if it has no end. */
  *end(): Generator<string, void, undefined> {
    yield* this.#lines(this.#decoder.decode());
    if (this.#rest !== "") yield this.#rest.replace(/\r$/, "");
    this.#rest = "";
  }

  *#lines(text: string): Generator<string, void, undefined> {
    this.#rest += text;
    let position = 0;
    for (const end of this.#rest.matchAll(/\r\n|\n|\r/g)) {
      // The line feed of a carriage return may come with the next chunk.
      if (end[0] === "\r" && end.index + 1 === this.#rest.length) break;
      yield this.#rest.slice(position, end.index);
      position = end.index + end[0].length;
    }
    this.#rest = this.#rest.slice(position);
  }
}

/** Puts events together from lines. */
export class EventParser {
  #data: string[] = [];
  #event = "";
  #id: string | null = null;
  #retry: number | null = null;

  /** Return the event that *line* ends, or `null` if it ends none. */
  feed(line: string): ServerSentEvent | null {
    if (line === "") return this.#dispatch();
    const [, name = "", given = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (name === "data") this.#data.push(given);
    else if (name === "event") this.#event = given;
    else if (name === "id" && !given.includes("\0")) this.#id = given;
    else if (name === "retry" && /^[0-9]+$/.test(given)) this.#retry = Number(given);
    return null;
  }

  #dispatch(): ServerSentEvent | null {
    const [data, event, retry] = [this.#data, this.#event, this.#retry];
    [this.#data, this.#event, this.#retry] = [[], "", null];
    return data.length === 0 ? null : { event: event || "message", data: data.join("\n"), id: this.#id, retry };
  }
}
