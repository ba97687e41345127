/** A server that answers by a script, and remembers what it was asked. */

import { once } from "node:events";
import { createServer } from "node:http";

/**
 * Serve until *test* ends.
 *
 * `says(…)` takes one answer after the other, the last one again and again: `{ status, body, headers }`, or a function
 * of the request that returns one. `silent` never answers, `cut` announces more than it sends, `drips` never ends,
 * `resets` breaks the connection off.
 */
export async function serving(test) {
  const script = new Script();
  const server = createServer((request, response) => void script.handle(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  test.after(async () => {
    server.close();
    server.closeAllConnections();
    await once(server, "close");
  });
  script.url = `http://127.0.0.1:${server.address().port}`;
  return script;
}

/** Return a promise, and what resolves it. */
export function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { opened, open };
}

class Script {
  asked = [];
  #answers = [{}];

  says(...answers) {
    this.#answers = answers;
  }

  get last() {
    return this.asked.at(-1);
  }

  async handle(request, response) {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    const [path, query = ""] = request.url.split("?");
    const asked = { method: request.method, path, query, headers: request.headers, body };
    this.asked.push(asked);
    const next = this.#answers.length > 1 ? this.#answers.shift() : this.#answers[0];
    send(response, typeof next === "function" ? await next(asked) : next);
  }
}

function send(response, { status = 200, body = {}, headers = {}, silent, cut, drips, resets }) {
  if (silent) return;
  if (resets) {
    response.socket.resetAndDestroy();
    return;
  }
  response.sendDate = false;
  const raw = typeof body === "string" ? body : JSON.stringify(body);
  const length = drips ? {} : { "content-length": Buffer.byteLength(raw) + (cut ? 10 : 0) };
  response.writeHead(status, { "content-type": "application/json", "x-request-id": "req-1", ...length, ...headers });
  response.write(raw);
  if (cut) response.socket.destroySoon();
  else if (!drips) response.end();
}
