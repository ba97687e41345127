/** Skills and their executions. */

import { anything, ObjectParser, text, type Json } from "../wire/parsing.js";
import type { Response } from "../wire/response.js";
import { Result } from "./result.js";

/** Something that can be executed. */
export class Skill extends Result {
  /** Its id. */
  readonly id: string;
  /** Its name. */
  readonly name: string;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    this.id = parser.required("id", text);
    this.name = parser.optional("name", text, "");
  }
}

/** The result of a skill. `output` is any JSON value. */
export class Execution extends Result {
  /** The skill that was executed. */
  readonly skillId: string | null;
  /** What it returned: any JSON value. */
  readonly output: unknown;

  /** @internal */
  constructor(parser: ObjectParser, response: Response) {
    super(parser, response);
    this.skillId = parser.optional("skill_id", text, null);
    this.output = parser.optional("output", anything, null);
  }
}

/** Return one of the skills in *response*. */
export function skillFrom(members: Json, response: Response): Skill {
  return new Skill(new ObjectParser(members), response);
}

/** Return the execution in *response*. */
export function executionFrom(members: Json, response: Response): Execution {
  return new Execution(new ObjectParser(members), response);
}
