/** Skills, and what executing one brings. */

import { anything, Members, text, type Json } from "../wire/reading.js";
import type { Response } from "../wire/response.js";
import { Received } from "./received.js";

/** Something that can be executed. */
export class Skill extends Received {
  readonly id: string;
  readonly name: string;

  /** @internal */
  constructor(of: Members, response: Response) {
    super(of, response);
    this.id = of.required("id", text);
    this.name = of.optional("name", text, "");
  }
}

/** The outcome of a skill. `output` is whatever JSON the skill answers with, untouched. */
export class Execution extends Received {
  readonly skillId: string | null;
  readonly output: unknown;

  /** @internal */
  constructor(of: Members, response: Response) {
    super(of, response);
    this.skillId = of.optional("skill_id", text, null);
    this.output = of.optional("output", anything, null);
  }
}

/** Return one of the skills in *response*. */
export function skillFrom(members: Json, response: Response): Skill {
  return new Skill(new Members(members), response);
}

/** Return the execution that *response* tells of. */
export function executionFrom(members: Json, response: Response): Execution {
  return new Execution(new Members(members), response);
}
