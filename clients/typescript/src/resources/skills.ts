/** `client.skills`: what can be executed. */

import { fetchPage, Listing } from "../results/page.js";
import { executionFrom, skillFrom, type Execution, type Skill } from "../results/skill.js";
import { checkNames, jsonOf } from "../wire/call.js";
import { parseObject } from "../wire/parsing.js";
import type { Transport } from "../wire/transport.js";
import type { IdempotencyOptions } from "./keys.js";

/** The skill to execute, and its input. */
export interface SkillExecution extends IdempotencyOptions {
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
  async execute(params: SkillExecution): Promise<Execution> {
    checkNames("skills.execute", params, ["skillId", "input", "idempotencyKey"]);
    const body = jsonOf({ skill_id: params.skillId, input: params.input });
    const { idempotencyKey } = params;
    const call = { method: "POST", path: "/v1/skills/execute", body, idempotencyKey } as const;
    return parseObject(await this.#transport.send(call), executionFrom);
  }

  /** List the skills that the credential has access to: `await` returns the first page, `for await` yields all. */
  list(): Listing<Skill> {
    return new Listing(() => fetchPage(this.#transport, { method: "GET", path: "/v1/skills" }, skillFrom));
  }
}
