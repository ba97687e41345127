/**
 * What may be seen of a value.
 *
 * `console.log`, `JSON.stringify` and an error tracker all look into what they are given. A value that holds a secret
 * keeps it in a `#private` field, and says here what they see in its place.
 */

/** What Node.js calls on a value to print it; elsewhere nobody asks for it. */
export const INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom");

/** A value that is printed as what `toJSON` returns. */
export abstract class Shown {
  /** Return what may be seen: no secret is in it. */
  abstract toJSON(): object;

  /** @internal */
  [INSPECT](_depth: number, options: object, inspect: (value: unknown, options: object) => string): string {
    return `${this.constructor.name} ${inspect(this.toJSON(), options)}`;
  }
}
