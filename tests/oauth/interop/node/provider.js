// oidc-provider in memory, with the apps and the rules of the authorization server that it is compared with: both are
// on its standard input, as one line of JSON. Its issuer is told in a line, and it ends with whoever started it.

import { createServer } from 'node:http';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

console.info = console.warn = () => {}; // advice for whoever would run it in earnest
const { default: Provider, errors } = await import('oidc-provider');

const [line] = await once(createInterface({ input: process.stdin }), 'line');
const { apps, scopes, beyond, audience, resources } = JSON.parse(line);
process.stdin.on('end', () => process.exit());

const ACCOUNT = 'ada';

const clients = apps.map(({ id, secret, redirect_uri, grant_types }) => ({
  client_id: id,
  ...(secret ? { client_secret: secret } : {}),
  token_endpoint_auth_method: secret ? 'client_secret_basic' : 'none', // which takes client_secret_post as well
  application_type: secret ? 'web' : 'native',
  redirect_uris: redirect_uri ? [redirect_uri] : [],
  response_types: redirect_uri ? ['code'] : [],
  grant_types,
  scope: scopes.join(' '),
}));

const isOwn = (_ctx, client, token) => client.clientId === token.clientId && client.clientAuthMethod !== 'none';

async function granted({ oidc: { provider, client, account } }) {
  const grant = new provider.Grant({ accountId: account.accountId, clientId: client.clientId });
  grant.addOIDCScope(scopes.join(' '));
  for (const resource of [audience, ...resources]) grant.addResourceScope(resource, scopes.join(' '));
  await grant.save();
  return grant;
}

const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients,
  scopes: [...scopes, beyond],
  responseTypes: ['code'],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
  expiresWithSession: () => false,
  findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  loadExistingGrant: granted,
  interactions: { url: (_ctx, { uid }) => `/interaction/${uid}` },
  cookies: { keys: [issuer] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true, allowedPolicy: isOwn },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo(_ctx, resource) {
        if (![audience, ...resources].includes(resource)) throw new errors.InvalidTarget();
        return { scope: scopes.join(' ') };
      },
    },
  },
});

// Whoever comes is signed in, and allows what is asked.
provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next();
  const { prompt, grantId } = await provider.interactionDetails(ctx.req, ctx.res);
  const result = prompt.name === 'login' ? { login: { accountId: ACCOUNT } } : { consent: { grantId } };
  ctx.respond = false;
  return provider.interactionFinished(ctx.req, ctx.res, result);
});

server.on('request', provider.callback());
console.log(JSON.stringify(issuer));
