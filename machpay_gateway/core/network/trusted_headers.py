"""Request headers that software behind a proxy trusts, because it expects the proxy to set them.

Callers can send any of them, so they are dropped unless a setting names them. The table has names, and prefixes with a
final hyphen, with the products that set or trust them. Names are in the form of `hyphenate`.
"""

from collections.abc import Sequence

from machpay_gateway.core.errors import ConfigurationError

_OURS = "x-machpay-"
# The proxy sets these itself.
_WRITTEN = frozenset({"forwarded", "x-forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"})
# Of Latin-1: all but letters and digits become hyphens.
_HYPHENS = bytes(byte if chr(byte).isascii() and chr(byte).isalnum() else ord("-") for byte in range(256))

# The caller's identity.
_IDENTITY = (
    "remote-",  # Authelia; CGI's REMOTE_USER, which Django and Rails read, and REMOTE_ADDR
    "auth-user", "auth-type", "auth-email", "ynh-user",  # YunoHost; CGI's AUTH_TYPE
    "x-remote-",  # Kubernetes' request header authenticator, Home Assistant's ingress
    "impersonate-",  # Kubernetes
    "x-auth-request-",  # oauth2-proxy; what it writes as X-Forwarded-* falls under that below
    "x-auth-user", "x-auth-username", "x-auth-userid", "x-auth-email", "x-auth-groups", "x-auth-roles",  # Louketo,
    "x-auth-subject", "x-auth-audience", "x-auth-name",  # Keycloak Gatekeeper
    "x-authentik-",  # authentik
    "x-authenticated-",  # Kong's OAuth 2 plugin, Squid, Blue Coat
    "x-authentication-", "x-verified-user",
    "x-pomerium-",  # Pomerium
    "x-vouch-",  # Vouch Proxy
    "x-webauth-",  # Grafana, Gitea, Forgejo
    "x-proxy-user", "x-proxy-roles", "x-proxy-remote-user",  # OpenSearch, Elasticsearch
    "x-token-user-", "x-token-subject",  # caddy-security
    "x-sandstorm-",  # Sandstorm
    "x-consumer-", "x-credential-", "x-anonymous-consumer", "x-userinfo", "x-id-token",  # Kong, Apache APISIX
    "x-amzn-oidc-", "x-amzn-lattice-", "x-amzn-ava-", "x-amzn-mtls-", "x-amzn-tls-",  # AWS load balancers, VPC Lattice
    "x-ms-client-principal", "x-ms-client-principal-", "x-ms-token-", "ms-aspnetcore-",  # Azure App Service, IIS
    "x-goog-authenticated-user-", "x-goog-iap-",  # Google's Identity-Aware Proxy
    "x-appengine-", "x-cloudtasks-", "x-cloudscheduler", "x-cloudscheduler-",  # Google App Engine, Cloud Run
    "x-endpoint-api-userinfo", "x-apigateway-api-userinfo",  # Google Cloud Endpoints, API Gateway
    "cf-access-", "cf-client-cert-", "cf-cert-",  # Cloudflare Access and its client certificates
    "tailscale-",  # Tailscale Serve
    "teleport-jwt-assertion",  # Teleport
    "kubeflow-userid",  # Kubeflow
    "x-jwt-assertion", "x-jwt-payload", "x-jwt-claim-",  # WSO2, Istio
    "x-identity-", "x-roles", "x-role", "x-groups",  # OpenStack's middleware, Ory Oathkeeper
    "x-user", "x-user-id", "x-user-name", "x-user-email", "x-user-roles", "x-user-groups", "x-username", "x-userid",
    "x-email", "x-principal", "x-subject", "x-claims", "x-scopes",  # what sidecars and gateways are written to add
    "oidc-",  # mod_auth_openidc
    "mellon-", "shib-", "eppn", "persistent-id",  # mod_auth_mellon, Shibboleth
    "oam-", "osso-",  # Oracle Access Manager
    "iv-user", "iv-groups", "iv-creds", "iv-server-name", "iv-remote-address",  # IBM Security Verify Access (WebSEAL)
    "sm-user", "sm-userdn", "sm-universalid", "sm-authtype", "sm-serversessionid", "smuser",  # SiteMinder
    "-wsru", "-wscc", "-wsrh", "-wsra", "-wsat", "-wssc", "-wspr", "-wssn", "-wsis",  # WebSphere's plug-in: $WSRU
    "l5d-",  # Linkerd: the client's identity, and where to route
    "x-envoy-",  # Envoy: internal or not, and the client's address
    "dapr-caller-", "x-spiffe-", "x-gitlab-workhorse", "gitlab-workhorse-",
)  # fmt: skip
# The certificate of a TLS client.
_CERTIFICATES = (
    "client-cert", "client-cert-",  # RFC 9440
    "ssl-", "x-ssl-", "x-tls-client-", "x-client-cert", "x-client-cert-", "x-client-certificate", "x-client-verify",
    "x-client-dn", "x-client-subject-",  # common in configurations of nginx, HAProxy and Apache
    "x-arr-",  # Azure's and IIS' request router
    "wl-proxy-", "proxy-client-",  # WebLogic
)  # fmt: skip
# The caller's address, the host name and the scheme of the request.
_CLIENTS = (
    "forwarded", "x-forwarded", "x-forwarded-", "forwarded-for",
    "x-real-", "client-ip", "x-client-ip", "x-client-port", "x-cluster-client-ip", "http-client-ip",
    "x-original-forwarded-for", "x-original-for", "x-original-host",
    "x-original-proto", "x-original-remote-", "x-originating-ip", "x-proxyuser-ip", "x-host", "x-http-host-override",
    "x-peer-", "x-coming-from", "coming-from", "z-forwarded-for", "x-scheme", "x-url-scheme", "front-end-https",
    "disguised-host", "x-azure-",  # Azure Front Door and App Service
    "cf-connecting-", "cf-pseudo-ipv4", "cf-ipcountry", "cf-worker",  # Cloudflare
    "true-client-", "x-akamai-",  # Akamai
    "fastly-",  # Fastly
    "cloudfront-",  # Amazon CloudFront
    "fly-client-ip", "x-vercel-", "x-nf-", "do-connecting-ip",  # Fly.io, Vercel, Netlify, DigitalOcean
    "eo-connecting-ip", "eo-client-ip",  # EdgeOne
    "incap-client-ip", "x-sucuri-", "ali-cdn-real-ip", "x-appgw-",  # Imperva, Sucuri, Alibaba Cloud, Azure
)  # fmt: skip
# Headers that make a server send another file or run another script.
_SERVERS = (
    "x-accel-",  # nginx; Rack::Sendfile reads X-Accel-Mapping of a request (CVE-2025-61780)
    "x-sendfile", "x-sendfile-", "x-lighttpd-", "x-reproxy-",
    "script-name", "path-info", "path-translated",  # gunicorn and other servers that CGI's variables are told to
    "x-script-name", "x-middleware-", "x-invoke-",  # Next.js (CVE-2025-29927)
)  # fmt: skip
_TABLE = _IDENTITY + _CERTIFICATES + _CLIENTS + _SERVERS
_PREFIXES = tuple(name for name in _TABLE if name.endswith("-"))
_NAMES = frozenset(_TABLE)
# Frameworks route by these instead of by the authorized path and method: no setting lets them pass.
ROUTING = frozenset(
    {
        "x-original-url", "x-original-uri", "x-rewrite-url", "x-original-method", "x-http-method",
        "x-http-method-override", "x-method-override", "x-forwarded-uri", "x-forwarded-method", "x-matched-path",
        "proxy",  # CGI makes of it where its programs send their own requests (CVE-2016-5385)
    }
)  # fmt: skip


def hyphenate(name: str) -> str:
    """Return *name* in the form in which CGI and its descendants do not distinguish it from others.

    RFC 3875 §4.1.18 maps hyphens to underscores; some servers map every other character to an underscore, too.
    """
    # Translated as bytes: a regular expression takes six times as long, and callers may send names of 30 KB.
    return name.lower().encode("latin-1", "replace").translate(_HYPHENS).decode("ascii")


def is_trusted_header(name: str) -> bool:
    """Tell whether the header *name*, or one that CGI does not distinguish from it, is in this table."""
    plain = hyphenate(name)
    return plain in _NAMES or plain in ROUTING or plain.startswith(_PREFIXES)


def validate_pass_headers(setting: object) -> tuple[str, ...]:
    """Return the names in *setting*, in lower case: headers of this table that pass nevertheless.

    *setting* is a list, or text with commas as in the environment. Raises ConfigurationError for names that never pass,
    and for names that are not in the table, which are probably mistyped.
    """
    names = setting.split(",") if isinstance(setting, str) else setting
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"pass_headers is a list of header names, not {setting!r}")
    return tuple(_validate_name(name.strip()) for name in names if name.strip())


def _validate_name(name: str) -> str:
    plain = hyphenate(name)
    if plain in ROUTING or plain in _WRITTEN or plain.startswith(_OURS):
        raise ConfigurationError(f"pass_headers: {name!r} never passes: the upstream is told by the gateway alone")
    if not is_trusted_header(name):
        from difflib import get_close_matches  # noqa: PLC0415 - for mistakes only

        close = get_close_matches(plain, _NAMES, n=1)
        way_out = f"did you mean {close[0]!r}?" if close else "leave it out"
        raise ConfigurationError(f"pass_headers: {name!r} is not one of the headers that are dropped; {way_out}")
    return name.lower()
