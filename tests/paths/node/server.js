// Express or Koa, as its users run it, with the handlers that are on its standard input as one line of JSON. It tells
// its port in a line, and ends with whoever started it.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

const MAKERS = {
  async express(handlers) {
    const { default: express } = await import('express');
    const app = express();
    for (const { name, template } of handlers) app.get(template, (_request, response) => response.type('text').send(name));
    return app;
  },
  async koa(handlers) {
    const [{ default: Koa }, { default: Router }] = await Promise.all([import('koa'), import('@koa/router')]);
    const app = new Koa();
    const router = new Router();
    for (const { name, template } of handlers) {
      router.get(template, (context) => {
        context.body = name;
      });
    }
    app.silent = true; // a path that cannot be unescaped is an error in its log
    return app.use(router.routes()).callback();
  },
};

const [line] = await once(createInterface({ input: process.stdin }), 'line');
process.stdin.on('end', () => process.exit());
const server = createServer(await MAKERS[process.argv[2]](JSON.parse(line)));
server.listen(0, '127.0.0.1');
await once(server, 'listening');
console.log(JSON.stringify(server.address().port));
