"""What each setting may be: every kind of mistake is told by its place, none is taken for something else."""

from pathlib import Path

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.settings import load_settings
from machpay_gateway.settings.listeners import places_of, to_text

ROUTE = '[[routes]]\nmatch = "GET /a"\n'
SCOPES = '[scopes]\n"orders:read" = "Read orders"\n'
TIER = '[tiers.gold]\nrate = "9/minute"\nconcurrency = 1\n'
ISSUER = '[[issuers]]\nissuer = "https://id.example.com"\naudience = "api"\njwks = "jwks.json"\n'


def mistakes(directory: Path, text: str) -> list[str]:
    """Return what is told of *text* as the file `m.toml`, without the file's name."""
    path = directory / "m.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"config": path}, {})
    return [line.removeprefix(f"{path}:") for line in str(caught.value).split("\n")]


@pytest.mark.parametrize(
    "text, message",
    [
        ("database = 5", "1: database: not a URL that starts with sqlite:// or postgresql:// or memory://"),
        ('database = "mysql://x"', "1: database: not a URL that starts with sqlite://"),
        ('database = "machpay.db"', "1: database: not a URL"),
        ('database = ""', "1: database: not a URL"),
        ('redis = "http://x"', "1: redis: not a URL that starts with redis://"),
        ('redis = "redis://[::1"', "1: redis: not a URL"),
        ('unlisted_routes = "Deny"', "1: unlisted_routes: 'Deny' is not one of deny, authenticated"),
        ("unlisted_routes = true", "1: unlisted_routes: True is not one of"),
        ('on_limiter_failure = "open"', "1: on_limiter_failure: 'open' is not one of local, deny, allow"),
        ('environments = ["prod"]', "1: environments: ['prod'] is not a list of live, test or both"),
        ("environments = []", "1: environments: [] is not a list of live, test or both"),
        ("environments = {live = true}", "1: environments: "),
        ("scopes = 5", "1: scopes: 5 is not a list"),
        ('scopes = ["a", "b c"]', "1: scopes[1]: 'b c' is not a scope name"),
        ('scopes = ["a, b"]', "1: scopes[0]: 'a, b' is not a scope name: each is an item of its own"),
        ("[scopes]\na = 5", '2: scopes.a: 5 does not say what the scope allows: write "a" = "What it allows"'),
        ('[scopes]\n"a:b" = " "', "2: scopes.a:b: ' ' does not say what the scope allows"),
        ('[scopes]\n"a" = "A"\n"a,b" = "Both"', "3: scopes.a,b: 'a,b' is not a scope name"),
        (
            f'{SCOPES}{ROUTE}scopes = "orders:raed"',
            "5: routes[0].scopes: 'orders:raed' is not in [scopes]; did you mean",
        ),
        (f'{SCOPES}{ROUTE}scopes = "orders:red | a"', "5: routes[0].scopes: 'orders:red' is not in [scopes]; did you"),
        ("application = 5", '1: application: 5 is not a module and the name of an application in it, as in "main:app"'),
        ('application = "main.py"', "1: application: 'main.py' is not a module and the name of an application in it"),
        ('application = "main:"', "1: application: 'main:' is not a module and the name of an application in it"),
        (f'{ROUTE}scopes = "a, b"', "3: routes[0].scopes: 'a, b' is not a scope expression: 'a b' requires both"),
        ('[[routes]]\nmatch = "GETT /x"', "2: routes[0].match: Route 'GETT /x': GETT is not a method of HTTP; did you"),
        ('scopes = ["a*"]', "1: scopes[0]: 'a*': a `*` may only stand for the whole last part"),
        ("trusted_proxies = 5", "1: trusted_proxies: 5 is not a list"),
        ("trusted_proxies = [10]", "1: trusted_proxies[0]: '10' is not a network"),
        ('trusted_proxies = ["10.0.0.0/8", "10.0.0.0/33"]', "1: trusted_proxies[1]: '10.0.0.0/33' is not a network"),
        ('trusted_proxies = ["0.0.0.0/0"]', "1: trusted_proxies[0]: '0.0.0.0/0' would let every caller claim any"),
        ('trusted_proxies = ["::/0"]', "1: trusted_proxies[0]: '::/0' would let every caller claim any"),
        ('trusted_proxies = ["::ffff:0:0/96"]', "1: trusted_proxies[0]: '::ffff:0:0/96' would let every caller"),
        ('trusted_proxies = ["*"]', "1: trusted_proxies[0]: '*' is not a network"),
        ('client_ip_header = "X Forwarded"', "1: client_ip_header: 'X Forwarded' is not the name of a header"),
        ('client_ip_header = ""', "1: client_ip_header: '' is not the name of a header"),
        ('client_ip_header = ["A", "B"]', "1: client_ip_header: ['A', 'B'] is not the name of a header"),
        ('client_ip_header = "authorization"', "1: client_ip_header: 'authorization' does not carry addresses"),
        ('failure_limit = "often"', "1: failure_limit: Rate 'often' is not a rate"),
        ("failure_limit = 5", "1: failure_limit: 5 is not a rate"),
        ('legacy_headers = "yes"', "1: legacy_headers: 'yes' is neither true nor false"),
        ("legacy_headers = 1", "1: legacy_headers: 1 is neither true nor false"),
        ("tiers = 5", "1: tiers: 5 is not a table of tiers"),
        ("[tiers]\ngold = 5", "2: tiers.gold: 5 is not a table"),
        ('[tiers.gold]\nrate = "5/minute"', "1: tiers.gold: lacks concurrency"),
        ("[tiers.gold]", "1: tiers.gold: lacks rate and concurrency"),
        ('[tiers.gold]\nrate = "x"\nconcurrency = 1', "2: tiers.gold.rate: Rate 'x' is not a rate"),
        (
            '[tiers.gold]\nrate = "5/minute"\nconcurrency = 0',
            "3: tiers.gold.concurrency: Concurrency 0 is not a number",
        ),
        (
            '[tiers.gold]\nrate = "5/minute"\nconcurrency = 1\nmax_keys = 0',
            "4: tiers.gold.max_keys: 0 is not a number of keys: use 1 to 1000000",
        ),
        ('[tiers.test]\nmax_keys = "many"', "2: tiers.test.max_keys: 'many' is not a number of keys"),
        (
            "[tiers.gold]\nrate = 5\nconcurrency = 1",
            "2: tiers.gold.rate: Rate 5 is neither text, as in 1000/minute, nor a list of it",
        ),
        ('[tiers.test]\nrte = "5/minute"', "2: tiers.test.rte: 'rte' is not a setting here; did you mean 'rate'?"),
        ("[tiers.test]\nrate = 5", "2: tiers.test.rate: Rate 5 is neither text, as in 1000/minute, nor a list of it"),
        ('[tiers.test]\nrate = "1,000/minute"', "2: tiers.test.rate: Rate '1,000/minute': '1' has no window; `;`, `,`"),
        ('[tiers.test]\nrate = "5/second;"', "2: tiers.test.rate: Rate '5/second;': '' has no window"),
        ('[tiers.test]\nrate = "5/0 minutes"', "2: tiers.test.rate: Rate '5/0 minutes' has no usable window: use 1 to"),
        ('[tiers.test]\nrate = "5/40 years"', "2: tiers.test.rate: Rate '5/40 years' has no usable window: use 1 to"),
        (
            '[tiers.test]\nrate = ["60/minute", "1/60 seconds"]',
            "2: tiers.test.rate: Rate ['60/minute', '1/60 seconds'] has two limits for one window (60-seconds)",
        ),
        ('[tiers.test]\nrate = "5"', "2: tiers.test.rate: Rate '5' is not a rate: write a number and a window"),
        ('[anonymous]\nrate = "5"', "2: anonymous.rate: Rate '5' is not a rate: write a number and a window"),
        (f'{TIER}owner = {{ quota = "5" }}', "4: tiers.gold.owner.quota: Quota '5' is not a number a calendar day or"),
        (f"{TIER}quota = 5", "4: tiers.gold.quota: Quota 5 is neither text, as in 50000/month, nor a list of it"),
        (f'{TIER}quota = "1/hour"', "4: tiers.gold.quota: Quota '1/hour' is not a number a calendar day or month"),
        (f'{TIER}quota = "1/2 months"', "4: tiers.gold.quota: Quota '1/2 months' is not a number a calendar day or"),
        (f"{TIER}account = 5", "4: tiers.gold.account: 5 is not a table"),
        (f"{TIER}owner = {{}}", "4: tiers.gold.owner: sets no limit: give it a rate, a concurrency or a quota"),
        (
            f'{TIER}account = {{ rat = "5/minute" }}',
            "4: tiers.gold.account.rat: 'rat' is not a setting here; did you mean 'rate'?",
        ),
        (
            f"{TIER}[tiers.gold.owner]\nconcurrency = 0",
            "5: tiers.gold.owner.concurrency: Concurrency 0 is not a number of requests",
        ),
        (f"{TIER}account = {{ rate = 5 }}", "4: tiers.gold.account.rate: Rate 5 is neither text, as in 1000/minute"),
        (f"{TIER}account = {{ quota = 5 }}", "4: tiers.gold.account.quota: Quota 5 is neither text, as in 50000/month"),
        ("[anonymous]", "1: anonymous: sets no limit: give it a rate or a concurrency"),
        ("[anonymous]\nenforce = false", "1: anonymous: sets no limit: give it a rate or a concurrency"),
        ("[anonymous]\nrate = 5", "2: anonymous.rate: Rate 5 is neither text, as in 1000/minute, nor a list of it"),
        (
            '[anonymous]\nrate = "5/minute"\naccount = { rate = "5/minute" }',
            "3: anonymous.account: 'account' is not a setting here; known: concurrency, enforce, rate",
        ),
        ("upstreams = 5", "1: upstreams: 5 is not a table of upstreams"),
        ('[upstreams]\ntest = "http://x"', "2: upstreams.test: 'test' is not a setting here; "),
        ("services = 5", "1: services: 5 is not a table of services"),
        ("[services]\nbilling = 5", "2: services.billing: 5 is not a table with live, sandbox or both"),
        ("[services.billing]\nvia = true", "1: services.billing: names neither live nor sandbox, so there is nowhere"),
        ('[services."a b"]\nlive = "http://x"', "1: services.a b: 'a b' is not the name of a service: use letters"),
        ('[services.a]\nlive = "http://x"\ntest = "http://x"', "3: services.a.test: 'test' is not a setting here; "),
        ('[services.a]\nlive = "http://x?a"', "2: services.a.live: 'http://x?a' is not an http:// or https:// address"),
        ('[services.a]\nlive = "http://x/a/../b"', "2: services.a.live: 'http://x/a/../b' is not an http:// or"),
        ('[services.a]\nlive = ["http://x/a", "http://y"]', "2: services.a.live: names servers with different paths"),
        ('[services.a]\nlive = "http://x"\nhost = "a b"', '3: services.a.host: host is "client", "upstream" or the'),
        ('[services.a]\nlive = "http://x"\nidle_seconds = -1', "3: services.a.idle_seconds: idle_seconds is a number"),
        ('[services.a]\nlive = "http://x"\npass_headers = []', "3: services.a.pass_headers: 'pass_headers' is not a"),
        ('[upstreams]\nlive = "http://x"\nvia = 5', "3: upstreams.via: via is true or false, not 5"),
        (
            f'[upstreams]\nlive = "http://x"\n[services.billing]\nlive = "http://x"\n{ROUTE}service = "biling"',
            "7: routes[0].service: Service 'biling' is not defined; did you mean 'billing'? Known services: billing",
        ),
        (
            (
                f'[upstreams]\nlive = "http://x"\n[services.a]\nlive = "http://x"\n{ROUTE}service = "a"\n'
                'environments = ["test"]'
            ),
            "8: routes[0].environments: Service 'a' has no upstream for test credentials: all callers would be refused",
        ),
        (
            f'{ROUTE}service = "billing"',
            "3: routes[0].service: Service 'billing' is not defined; add [services.billing]",
        ),
        (f'[services.a]\nlive = "http://x"\n{ROUTE}', "3: routes[0]: names no service, and there is no default one"),
        (f"{ROUTE}service = 5", "3: routes[0].service: Route 'GET /a': service 5 is not the name of a service"),
        (f'{ROUTE}strip_prefix = "/b"', "3: routes[0].strip_prefix: Route 'GET /a': strip_prefix '/b' is not how the"),
        (f'{ROUTE}add_prefix = "b"', "3: routes[0].add_prefix: Route 'GET /a': add_prefix 'b' is not the beginning of"),
        (f'{ROUTE}rewrite = "/b/{{id}}"', "3: routes[0].rewrite: Route 'GET /a': rewrite '/b/{id}': {id} is not a"),
        (f"{ROUTE}proxy = {{ via = false }}", "3: routes[0].proxy.via: via holds for all routes of a service"),
        (
            f'{ROUTE}request_headers = {{ set = {{ "X-MachPay-Tier" = "gold" }} }}',
            "3: routes[0].request_headers: Route 'GET /a': request_headers: 'X-MachPay-Tier' cannot be changed: the",
        ),
        (
            f'brand = {{ header_prefix = "X-Acme-" }}\n{ROUTE}request_headers = {{ remove = ["X_Acme_Tier"] }}',
            "4: routes[0].request_headers: 'x-acme-tier' cannot be changed: the gateway says who the caller is",
        ),
        ('[proxy]\nhost = ""', '2: proxy.host: host is "client", "upstream" or the name of a host'),
        (
            '[proxy]\nresponse_headers = { remove = "Server" }',
            "2: proxy.response_headers: response_headers: remove is a",
        ),
        (
            '[upstreams]\nbalance = "best"',
            "2: upstreams.balance: balance 'best' is not one of least, round_robin, hash",
        ),
        ('[upstreams]\nhash_by = "a b"', "2: upstreams.hash_by: hash_by 'a b' is not key, owner, address or the name"),
        (
            "[upstreams]\nresolve_seconds = 0",
            "2: upstreams.resolve_seconds: resolve_seconds is a number of seconds from",
        ),
        ("[upstreams]\nhealth = {}", "2: upstreams.health: lacks path"),
        ('[upstreams.health]\npath = "x"', "2: upstreams.health.path: path 'x' does not start with /"),
        ('[upstreams]\nhealth = {path = "/", statuses = [99]}', "2: upstreams.health.statuses: statuses is a list of"),
        (
            '[upstreams]\nhealth = {path = "/", healthy = 0}',
            "2: upstreams.health.healthy: healthy is a number of checks",
        ),
        ('[upstreams]\nhealth = {path = "/", seconds = 1}', "2: upstreams.health.seconds: 'seconds' is not a setting"),
        ("[upstreams]\neject_5xx_rate = 50", "2: upstreams.eject_5xx_rate: eject_5xx_rate is a share from 0 to 1"),
        (
            "[upstreams]\nretry_statuses = [200]",
            "2: upstreams.retry_statuses: retry_statuses is a list of statuses from",
        ),
        ("[upstreams]\nretry_budget = 20", "2: upstreams.retry_budget: retry_budget is a share from 0 to 1"),
        ("[upstreams]\nmax_in_flight = -1", "2: upstreams.max_in_flight: max_in_flight is a number of requests, 0 for"),
        (
            "[upstreams]\ndead_peer_seconds = 1",
            "2: upstreams.dead_peer_seconds: dead_peer_seconds is a number of seconds",
        ),
        ("[upstreams]\nkeepalive_seconds = true", "2: upstreams.keepalive_seconds: keepalive_seconds is a number of"),
        (
            '[upstreams]\nlive = [{url = "http://x", weight = 0}]',
            "2: upstreams.live: weight is a whole number from 1 to",
        ),
        ('[upstreams]\nlive = {url = "http://x", wait = 1}', "2: upstreams.live: 'wait' is not a setting of a server"),
        ("[upstreams]\nlive = {weight = 1}", "2: upstreams.live: None is not an http:// or https:// address"),
        ('[upstreams]\nlive = "x:80"', "2: upstreams.live: 'x:80' is not an http:// or https:// address"),
        ('[upstreams]\nlive = "http://"', "2: upstreams.live: 'http://' is not an http:// or https:// address"),
        ('[upstreams]\nlive = "http://[::1"', "2: upstreams.live: 'http://[::1' is not an http:// or https:// address"),
        ("[upstreams]\nlive = 5", "2: upstreams.live: 5 is not an http:// or https:// address"),
        ("routes = 5", "1: routes: 5 is not a list"),
        ('routes = "GET /a"', "1: routes: is a list of tables"),
        ('routes = ["GET /a"]', "1: routes[0]: 'GET /a' is not a table"),
        ("[routes]", "1: routes: "),
        ("[[routes]]", "1: routes[0]: lacks match"),
        (f'{ROUTE}[[routes]]\nmatch = "/b"', "4: routes[1].match: Route '/b' does not start with a method"),
        (f'{ROUTE}scope = "a"', "3: routes[0].scope: 'scope' is not a setting here; did you mean 'scopes'?"),
        (f'{ROUTE}scopes = "a |"', "3: routes[0].scopes: Scope expression 'a |' has an empty alternative"),
        (f"{ROUTE}scopes = 5", "3: routes[0].scopes: "),
        (f"{ROUTE}scopes = [5]", "3: routes[0].scopes: "),
        (f'{ROUTE}scopes = [["a"]]', "3: routes[0].scopes: ['a'] is not a scope name"),
        (f"{ROUTE}cost = -1", "3: routes[0].cost: Route 'GET /a': cost -1 is not a number of units"),
        (f'{ROUTE}public = "false"', "3: routes[0].public: "),
        (f"{ROUTE}public = 1", "3: routes[0].public: "),
        (f'{ROUTE}public = true\nscopes = "a"', "4: routes[0].scopes: Route 'GET /a' is public and requires a"),
        (f'{ROUTE}limit = "5/minute"', "3: routes[0].limit: '5/minute' is not a table"),
        (f"{ROUTE}limit = {{}}", "3: routes[0].limit: sets no limit: give it a rate or a concurrency"),
        (f"{ROUTE}limit = {{ rate = 5 }}", "3: routes[0].limit.rate: Rate 5 is neither text, as in 1000/minute, nor"),
        (f"{ROUTE}limit = {{ rate = {{ a = 1 }} }}", "3: routes[0].limit.rate: Rate {'a': 1} is neither text"),
        (f'{ROUTE}limit = {{ concurrency = "5" }}', "3: routes[0].limit.concurrency: Concurrency '5' is not a number"),
        (
            f'{ROUTE}limit = {{ rate = "5/minute", by = "Key" }}',
            "3: routes[0].limit.by: by is one of key, account, owner, address, not 'Key'",
        ),
        (
            f'{ROUTE}limit = {{ rate = "5/minute", quota = "5/day" }}',
            "3: routes[0].limit.quota: 'quota' is not a setting here; known: by, concurrency, enforce, rate",
        ),
        (
            f'{ROUTE}public = true\nlimit = {{ rate = "5/minute", by = "key" }}',
            "4: routes[0].limit: Route 'GET /a' is public, so its callers have no key: limit it with by = \"address\"",
        ),
        (f"{ROUTE}proxy = 5", "3: routes[0].proxy: Route 'GET /a': proxy 5 is not a table"),
        (f'{ROUTE}encoded_slash = "yes"', "3: routes[0].encoded_slash: Route 'GET /a': encoded_slash is \"refuse\" or"),
        (f"{ROUTE}double_slash = true", "3: routes[0].double_slash: Route 'GET /a': double_slash is \"refuse\" or"),
        ('[proxy]\nnon_utf8_escapes = "on"', '2: proxy.non_utf8_escapes: non_utf8_escapes is "refuse" or "allow"'),
        (f"{ROUTE}[routes.proxy]\nidle = 5", "4: routes[0].proxy.idle: 'idle' is not a setting here; known: connect"),
        (f'{ROUTE}environments = ["prod"]', "3: routes[0].environments: "),
        (f'{ROUTE}environments = "live"', "3: routes[0].environments: "),
        ("[[routes]]\nmatch = 5", "2: routes[0].match: "),
        (f'{ROUTE}[[routes]]\nmatch = "GET /a/"', "3: routes[1]: Route 'GET /a/' matches the same requests as"),
        (f"{ROUTE}cost = 101", "1: routes[0]: Route 'GET /a' costs 101, more than tier 'test' ever has"),
        ("server = 5", "1: server: 5 is not a table"),
        ('[server]\nlisten = "127.0.0.1:65536"', "2: server.listen: '127.0.0.1:65536' is not an address to listen on"),
        ('[server]\nlisten = "::1:8000"', "2: server.listen: '::1:8000' is not an address to listen on"),
        ("[server]\nlisten = 65536", "2: server.listen: '65536' is not an address to listen on: a port is at most"),
        ("[server]\nlisten = []", "2: server.listen: [] names no address to listen on"),
        ("[server]\nlisten = true", "2: server.listen: True is not an address to listen on"),
        ('[server]\nlisten = "unix:machpay.sock"', "2: server.listen: 'unix:machpay.sock' is not the absolute path"),
        (
            f'[server]\nlisten = "unix:/{107 * "x"}"',
            f"2: server.listen: 'unix:/{107 * 'x'}' is longer than the 107 bytes of a Unix socket's path",
        ),
        ('[server]\nlisten = { mode = "0600" }', "2: server.listen: a listener lacks its address"),
        (
            '[server]\nlisten = { address = ":1", mod = "0600" }',
            "2: server.listen: 'mod' is not a setting of a listener",
        ),
        (
            '[server]\nlisten = { address = ":1", mode = "0600" }',
            "2: server.listen: mode is for Unix sockets, and ':1' is none",
        ),
        (
            '[server]\nlisten = { address = "unix:/s", mode = 600 }',
            "2: server.listen: mode 600 is not an octal number in quotes",
        ),
        (
            '[server]\nlisten = { address = "unix:/s", owner = "a:b:c" }',
            "2: server.listen: owner 'a:b:c' is not \"user\"",
        ),
        ('[server]\nlisten = { address = ":1", tls = 1 }', "2: server.listen: tls is true or false, not 1"),
        ('[server]\nlisten = { address = "unix:/s", tls = true }', "2: server.listen: tls is for addresses"),
        ('[server]\nlisten = { address = ":1", tls = true }', "2: server.listen: tls_certificate is not set, and a"),
        ('[server]\nclient_ca = "a.pem"', "2: server.client_ca: client_ca needs tls_certificate and tls_key"),
        (
            '[server]\nclient_certificate = "required"',
            "2: server.client_certificate: client_certificate needs client_ca, the authorities that issue them",
        ),
        (
            '[server]\nlisten = { address = ":1", client_certificate = "yes" }',
            "2: server.listen: client_certificate 'yes' is not one of optional, required",
        ),
        (
            '[[routes]]\nmatch = "GET /a"\nclient_certificate = "required"',
            "3: routes[0].client_certificate: needs client_ca",
        ),
        (
            '[[routes]]\nmatch = "GET /a"\nclient_certificate = true',
            "3: routes[0].client_certificate: Route 'GET /a': cl",
        ),
        ('[upstreams]\ntls_ca = ""', "2: upstreams.tls_ca: tls_ca '' is not the name of a PEM file"),
        ('[upstreams]\ntls_key = "a"', "2: upstreams.tls_key: tls_certificate and tls_key come together"),
        ('[upstreams]\ntls_server_name = "a b"', "2: upstreams.tls_server_name: tls_server_name 'a b' is not the name"),
        ("[server]\nproxy_protocol = 1", "2: server.proxy_protocol: proxy_protocol is true or false, not 1"),
        ("[server]\nproxy_protocol = true", "2: server.proxy_protocol: proxy_protocol needs trusted_proxies"),
        (
            '[server]\nlisten = { address = ":1", proxy_protocol = true }',
            "2: server.listen: proxy_protocol needs trusted_proxies",
        ),
        (
            'trusted_proxies = ["127.0.0.1"]\n[server]\nproxy_protocol = true\ncontrol_plane = "only"',
            '3: server.proxy_protocol: proxy_protocol is not for control_plane = "only"',
        ),
        ("[server]\ncertificates = 5", "2: server.certificates: certificates is a list of tables"),
        ('[server]\ncertificates = ["a"]', "2: server.certificates: certificates[0] 'a' is not a table"),
        (
            '[server]\ncertificates = [{ certificate = "a" }]',
            "2: server.certificates: certificates[0] needs a certific",
        ),
        ('[server]\ncertificates = [{ cert = "a" }]', "2: server.certificates: certificates[0]: 'cert' is not a"),
        ('[server]\nlisten = [":80", ":80"]', "2: server.listen: ':80' and ':80' are the same address"),
        (
            '[server]\nlisten = [":80", "127.0.0.1:80"]',
            "2: server.listen: '127.0.0.1:80' is a part of ':80': leave one of them out",
        ),
        (
            '[server]\nlisten = ["127.0.0.1:9400"]',
            "2: server.listen: management '127.0.0.1:9400' is an address of listen too",
        ),
        ('[server]\nmanagement = "::1:9400"', "2: server.management: '::1:9400' is not an address to listen on"),
        ("[server]\nworkers = 0", "2: server.workers: workers is a number from 1 to 1024, not 0"),
        ("[server]\nworkers = 1025", "2: server.workers: workers is a number from 1 to 1024, not 1025"),
        ("[server]\nmax_connections = -1", "2: server.max_connections: max_connections is a number from 0 to"),
        ("[server]\ndrain_seconds = 0", "2: server.drain_seconds: drain_seconds is a number of seconds, not 0"),
        ("[server]\nhead_seconds = inf", "2: server.head_seconds: head_seconds is a number of seconds, not inf"),
        (
            "[server]\ndead_peer_seconds = -1",
            "2: server.dead_peer_seconds: dead_peer_seconds is a number of seconds from",
        ),
        ("[server]\nkeepalive_seconds = true", "2: server.keepalive_seconds: keepalive_seconds is a number of seconds"),
        (
            '[server]\ncontrol_plane = "none"',
            "2: server.control_plane: control_plane 'none' is not one of on, off, only",
        ),
        ('[server]\nlog_format = "xml"', "2: server.log_format: log_format 'xml' is not one of text, json"),
        ('[server]\naccess_log = ""', "2: server.access_log: access_log '' is not stdout, off or the name of a file"),
        ('[server]\ntls_certificate = "a.pem"', "2: server.tls_certificate: tls_certificate and tls_key come together"),
        ('[server]\ntls_key = "a.pem"', "2: server.tls_key: tls_certificate and tls_key come together"),
        (f'secret_key = "{31 * "x"}"', "1: secret_key: use 32 random characters or more"),
        ("secret_key = 5", "1: secret_key: use 32 random characters or more"),
        ("forward_auth = 5", "1: forward_auth: 5 is not a table"),
        (
            "[forward_auth]\nlease_second = 5",
            "2: forward_auth.lease_second: 'lease_second' is not a setting here; did you mean 'lease_seconds'?",
        ),
        (
            "[forward_auth]\nlease_seconds = -1",
            "2: forward_auth.lease_seconds: lease_seconds is a number of seconds up",
        ),
        ("[forward_auth]\nlease_seconds = inf", "2: forward_auth.lease_seconds: lease_seconds is a number of seconds"),
        ("[forward_auth]\nlease_seconds = true", "2: forward_auth.lease_seconds: lease_seconds is a number of seconds"),
        ("[[issuers]]", "1: issuers[0]: lacks issuer and audience"),
        (f'{ISSUER}tier = "gold"', "5: issuers[0].tier: Tier 'gold' is not defined; known tiers: test, standard"),
        (f"{ISSUER}tier = 5", "5: issuers[0].tier: Tier 5 is not defined"),
        (f"{ISSUER}{ISSUER}", "6: issuers[1].issuer: Issuer 'https://id.example.com' is listed twice"),
        (
            f'{ISSUER}algorithms = ["none"]',
            "5: issuers[0].algorithms: Issuer 'https://id.example.com': algorithm 'none'",
        ),
        (f"{ISSUER}algorithms = 5", "5: issuers[0].algorithms: "),
        (f"{ISSUER}types = [5]", "5: issuers[0].types: "),
        (
            f"{ISSUER}environment = 5",
            "5: issuers[0].environment: Issuer 'https://id.example.com': environment 5 does not exist",
        ),
        (ISSUER.replace('"api"', "5"), "3: issuers[0].audience: "),
        (f"{ISSUER}tier = []", "5: issuers[0].tier: Tier [] is not defined"),
        (f"{ISSUER}scopes_claim = 5", "5: issuers[0].scopes_claim: Issuer 'https://id.example.com': scopes_claim 5 is"),
        (f'{ISSUER}scope_map = {{ a = "x*" }}', "5: issuers[0].scope_map: "),
        (f"{ISSUER}require = {{ a = 5 }}", "5: issuers[0].require: Issuer 'https://id.example.com': require.a: 5 is"),
        (
            f'{ISSUER}tier_map = {{ gold = "enterprise" }}',
            "1: issuers[0]: Issuer 'https://id.example.com': tier_map needs",
        ),
        (f'{ISSUER}tier_claim = "plan"', "1: issuers[0]: Issuer 'https://id.example.com': tier_claim needs tier_map"),
        (
            f'{ISSUER}tier_map = {{ gold = "gold" }}\ntier_claim = "plan"',
            "5: issuers[0].tier_map.gold: Tier 'gold' is not defined; known tiers: test, standard",
        ),
        (
            f'{ISSUER}tier_map = {{ gold = "test" }}\ntier_claim = "plan"\naccount_claim = 5',
            "7: issuers[0].account_claim: Issuer 'https://id.example.com': account_claim 5 is not a claim",
        ),
        (
            f'{ISSUER}scope_claim = "roles"',
            "5: issuers[0].scope_claim: 'scope_claim' is not a setting here; did you mean 'scopes_claim'?",
        ),
        (
            ISSUER.replace('"https://id.example.com"', '"id"').replace('"jwks.json"', '"jwks.json"\ntypes = 5'),
            "5: issuers[0].types: ",
        ),
        (
            '[[issuers]]\nissuer = "accounts.google.com"\naudience = "api"',
            "2: issuers[0].issuer: Issuer 'accounts.google.com': its keys cannot be discovered",
        ),
        (ISSUER.replace('"api"', "[5]"), "3: issuers[0].audience: "),
        (ISSUER.replace('"jwks.json"', "5"), "4: issuers[0].jwks: "),
        (ISSUER.replace('"https://id.example.com"', "5"), "2: issuers[0].issuer: "),
    ],
)
def test_a_value_that_cannot_be_meant_is_told_by_its_place(tmp_path: Path, text: str, message: str) -> None:
    (only,) = mistakes(tmp_path, text)
    assert only.startswith(message)


@pytest.mark.parametrize("value", ["mysql://me:hush@db/x", "hush", "http://:hush@x"])
@pytest.mark.parametrize("name", ["database", "redis"])
def test_a_url_that_may_hold_a_password_is_not_repeated(tmp_path: Path, name: str, value: str) -> None:
    assert "hush" not in "".join(mistakes(tmp_path, f'{name} = "{value}"'))


def test_every_mistake_of_a_table_is_told_at_its_own_line(tmp_path: Path) -> None:
    message = mistakes(
        tmp_path, '[[routes]]\nmatch = "nope"\nscopes = "a |"\ncost = -1\npublic = "yes"\n[tiers.x]\nrate = 5'
    )
    assert [line.split(": ")[:2] for line in message] == [
        ["2", "routes[0].match"],
        ["3", "routes[0].scopes"],
        ["4", "routes[0].cost"],
        ["5", "routes[0].public"],
        ["6", "tiers.x"],
    ]


def test_every_mistake_of_a_table_within_a_table_is_told_at_its_own_line(tmp_path: Path) -> None:
    limits = 'rate = "x"\nconcurrency = 0\nlimt = 1\n'
    routes = f'{ROUTE}[[routes]]\nmatch = "GET /b"\n[routes.limit]\n{limits}'
    message = mistakes(tmp_path, f"{TIER}[tiers.gold.account]\n{limits}{routes}")
    assert [line.split(": ")[:2] for line in message] == [
        ["5", "tiers.gold.account.rate"],
        ["6", "tiers.gold.account.concurrency"],
        ["7", "tiers.gold.account.limt"],
        ["13", "routes[1].limit.rate"],
        ["14", "routes[1].limit.concurrency"],
        ["15", "routes[1].limit.limt"],
    ]


def test_a_table_within_one_that_lacks_something_is_read_all_the_same(tmp_path: Path) -> None:
    text = (
        '[tiers.gold]\naccount = { rat = "5/minute" }\n[[routes]]\nproxy = { idle_seconds = -1, total_seconds = "5" }'
    )
    assert [line.split(": ")[:2] for line in mistakes(tmp_path, text)] == [
        ["1", "tiers.gold"],
        ["2", "tiers.gold.account.rat"],
        ["3", "routes[0]"],
        ["4", "routes[0].proxy.idle_seconds"],
        ["4", "routes[0].proxy.total_seconds"],
    ]


def test_a_mistake_between_routes_is_told_by_its_line_even_after_a_wrong_route(tmp_path: Path) -> None:
    message = mistakes(tmp_path, f'[[routes]]\nmatch = "wrong"\n{ROUTE}{ROUTE}')
    assert [line.split(": ")[:2] for line in message] == [["2", "routes[0].match"], ["5", "routes[2]"]]


def test_the_environments_of_a_route_are_a_list_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(f'{ROUTE}environments = ["live"]\n')
    assert load_settings({"config": path}, {}).routes[0].environments == frozenset({"live"})


def test_the_limits_of_ports_and_secret_keys_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(f'secret_key = "{32 * "x"}"\n[server]\nlisten = "[::]:65535"\nworkers = 1024\nmax_connections = 0')
    settings = load_settings({"config": path}, {})
    assert settings.server.listeners[0].places[1] == ("::", 65535)
    assert (settings.server.workers, settings.secret_key) == (1024, 32 * "x")


@pytest.mark.parametrize(
    "listen, expected",
    [
        ('"127.0.0.1:8000"', ["127.0.0.1:8000"]),
        ('":8000"', ["0.0.0.0:8000", "[::]:8000"]),
        ('"*:8000"', ["0.0.0.0:8000", "[::]:8000"]),
        ('"8000"', ["0.0.0.0:8000", "[::]:8000"]),
        ("8000", ["0.0.0.0:8000", "[::]:8000"]),
        ('"[::]:8000"', ["0.0.0.0:8000", "[::]:8000"]),
        ('["0.0.0.0:8000", "[::]:8000"]', ["0.0.0.0:8000", "[::]:8000"]),
        ('["[::]:8000", "127.0.0.1:8000"]', ["[::]:8000", "127.0.0.1:8000"]),
        ('["[::]:8000", "127.0.0.1:8001"]', ["0.0.0.0:8000", "[::]:8000", "127.0.0.1:8001"]),
        ('["[::1]:80", "localhost:81", "unix:/run/a.sock"]', ["[::1]:80", "localhost:81", "unix:/run/a.sock"]),
        ('{ address = "unix:/a", mode = "0600", owner = "x:y" }', ["unix:/a"]),
    ],
)
def test_what_is_listened_on(tmp_path: Path, listen: str, expected: list[str]) -> None:
    path = tmp_path / "m.toml"
    path.write_text(f"[server]\nlisten = {listen}")
    listeners = load_settings({"config": path}, {}).server.listeners
    assert [str(place.address) for place in places_of(listeners)] == expected
    environ = {"MACHPAY_SERVER__LISTEN": to_text(listeners)}
    assert load_settings({}, environ).server.listeners == listeners


def test_the_environment_separates_addresses_by_commas() -> None:
    server = load_settings({}, {"MACHPAY_SERVER__LISTEN": "127.0.0.1:80, [::1]:80,unix:/run/a.sock"}).server
    assert [listener.address for listener in server.listeners] == ["127.0.0.1:80", "[::1]:80", "unix:/run/a.sock"]


@pytest.mark.parametrize(
    "text",
    [
        f'{SCOPES}{ROUTE}scopes = "orders:read"',
        f'{SCOPES}{ROUTE}scopes = "reports:read"',  # like none
        f'{SCOPES}{ROUTE}scopes = "skills:list"',
        f'{SCOPES}{ROUTE}scopes = "orders:*"',
        f'scopes = ["orders:read"]\n{ROUTE}scopes = "orders:reads"',  # a list is of further scopes
    ],
)
def test_a_route_may_require_what_is_like_no_other_scope(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text, encoding="utf-8")
    assert len(load_settings({"config": path}, {}).routes) == 1


def test_a_table_says_what_scopes_allow(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(SCOPES, encoding="utf-8")
    assert load_settings({"config": path}, {}).scopes == {"orders:read": "Read orders"}
    assert load_settings({"config": path, "scopes": {"a": "All"}}, {}).scopes == {
        "orders:read": "Read orders",
        "a": "All",
    }
    assert load_settings({"config": path, "scopes": ["a"]}, {}).scopes == ("a",)
