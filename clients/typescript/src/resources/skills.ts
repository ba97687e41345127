/** `client.skills`: what can be executed. */

import { fetchPage, Listing } from "../results/page.js";
import { executionFrom, skillFrom, type Execution, type Skill } from "../results/skill.js";
import {
  changingOptions,
  readingOptions,
  type IdempotencyOptions,
  type RequestOptions,
} from "../settings/request-options.js";
import { jsonOf } from "../wire/call.js";
import { parseObject } from "../wire/parsing.js";
import type { Transport } from "../wire/transport.js";

/** The skill to execute, and its input. */
export interface SkillExecution extends IdempotencyOptions {
  /** The skill to execute. */
  readonly skillId: string;
  /** The input of the skill, sent unchanged. */
  readonly input: object;
}

/** List skills, and execute them. */
export class Skills {
  readonly #transport: Transport;

  /** @internal */
  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Execute a skill, and return its `.output`. */
  async execute(params: SkillExecution, options?: IdempotencyOptions): Promise<Execution> {
    const given = changingOptions("skills.execute", ["skillId", "input"], params, options);
    const body = jsonOf({ skill_id: params.skillId, input: params.input });
    const call = { method: "POST", path: "/v1/skills/execute", body, options: given };
    return parseObject(await this.#transport.send(call), executionFrom);
  }

  /** List the skills that the credential has access to: `await` returns the first page, `for await` yields all. */
  list(options: RequestOptions = {}): Listing<Skill> {
    return new Listing(async () => {
      const given = readingOptions("skills.list", [], options);
      return fetchPage(this.#transport, { method: "GET", path: "/v1/skills", options: given }, skillFrom);
    });
  }
}
