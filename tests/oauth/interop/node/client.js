// openid-client, told line by line what to do: each is [name, argument] in JSON, and is answered by one of
// {told} or {error}. What came of one step is kept for those after it, as an application keeps it in its session.

import { createInterface } from 'node:readline';
import * as openid from 'openid-client';

const methods = {
  client_secret_basic: openid.ClientSecretBasic,
  client_secret_post: openid.ClientSecretPost,
  none: () => openid.None(),
};

let config, session, key;

const options = () => (key === undefined ? undefined : { DPoP: key });

const steps = {
  async discover({ issuer, id, secret, method }) {
    config = await openid.discovery(new URL(issuer), id, {}, methods[method](secret), {
      algorithm: 'oauth2',
      execute: [openid.allowInsecureRequests],
    });
    key = undefined;
    return config.serverMetadata();
  },

  async ask({ redirect_uri, scope }) {
    session = { pkceCodeVerifier: openid.randomPKCECodeVerifier(), expectedState: openid.randomState() };
    return openid.buildAuthorizationUrl(config, {
      redirect_uri,
      scope,
      state: session.expectedState,
      code_challenge: await openid.calculatePKCECodeChallenge(session.pkceCodeVerifier),
      code_challenge_method: 'S256',
    });
  },

  redeem: (url) => openid.authorizationCodeGrant(config, new URL(url), session, undefined, options()),
  refresh: (token) => openid.refreshTokenGrant(config, token, undefined, options()),
  own: (parameters) => openid.clientCredentialsGrant(config, parameters, options()),
  introspect: (token) => openid.tokenIntrospection(config, token),
  revoke: (token) => openid.tokenRevocation(config, token),

  async call({ token, url }) {
    const response = await openid.fetchProtectedResource(
      config, token, new URL(url), 'GET', undefined, undefined, options(),
    );
    return response.json();
  },

  // Proof of possession (RFC 9449): from here on, every request for tokens and every call brings one.
  async prove() {
    key = openid.getDPoPHandle(config, await openid.randomDPoPKeyPair());
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, argument] = JSON.parse(line);
  const answer = await steps[name](argument).then(
    (told) => ({ told: told ?? null }),
    ({ name, code, error, status, cause }) => ({
      // A challenge hides the answer's body; what it is about stands in it.
      error: { name, error: error ?? cause?.[0]?.parameters?.error ?? code, status },
    }),
  );
  console.log(JSON.stringify(answer));
}
