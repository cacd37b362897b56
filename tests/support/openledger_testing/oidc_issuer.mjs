// A real OpenID provider for tests (oidc-provider, certified by the OpenID Foundation), on loopback.
//
// Reads its configuration as JSON from standard input: {port, keys, clients}, where keys are private JWKs and clients map a
// client id to {roles, claims}: `claims` replaces claims of its access tokens before they are signed, by which a token of
// this issuer can be too old, too new or for another audience. Prints one line when it listens.
import { readFileSync } from "node:fs";
import Provider from "oidc-provider";

const { port, keys, clients } = JSON.parse(readFileSync(0, "utf8"));
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  jwks: { keys },
  enabledJWA: { idTokenSigningAlgValues: [...new Set(keys.map((key) => key.alg))] },
  clients: Object.keys(clients).map((id) => ({
    client_id: id,
    client_secret: "secret",
    grant_types: ["client_credentials"],
    id_token_signed_response_alg: keys[0].alg,
    redirect_uris: [],
    response_types: [],
  })),
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "urn:openledger",
      getResourceServerInfo: () => ({
        audience: "openledger",
        scope: "curator contributor user",
        accessTokenFormat: "jwt",
        accessTokenTTL: 3600,
        jwt: { sign: { alg: keys[0].alg } },
      }),
    },
  },
  extraTokenClaims: (context, token) => ({ roles: clients[token.clientId].roles }),
  formats: {
    customizers: {
      jwt: (context, token, parts) => {
        Object.assign(parts.payload, clients[token.clientId].claims ?? {});
        return parts;
      },
    },
  },
});

provider.listen(port, "127.0.0.1", () => console.log(JSON.stringify({ issuer })));
