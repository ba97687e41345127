/**
 * Safe output of values with secrets.
 *
 * `console.log`, `JSON.stringify` and error trackers print the fields of a value. A value with a secret keeps it in a
 * `#private` field, and defines here what they print instead.
 */

/** The method that Node.js calls to print a value. Other runtimes ignore it. */
export const INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom");

/** A value that is printed as the result of `toJSON`. */
export abstract class SafeOutput {
  /** Return the value without its secrets. */
  abstract toJSON(): object;

  /** @internal */
  [INSPECT](_depth: number, options: object, inspect: (value: unknown, options: object) => string): string {
    return `${this.constructor.name} ${inspect(this.toJSON(), options)}`;
  }
}
