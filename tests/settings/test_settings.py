"""Where settings come from, and which of the sources wins. What each may be: test_fields."""

import json
import tomllib
from pathlib import Path

import pytest

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.limits.rate import TIERS, RouteLimit, Tier
from machpay_gateway.core.network.proxy_settings import ProxySettings
from machpay_gateway.core.network.upstream import Upstream
from machpay_gateway.settings import Options, Settings, check_file, load_settings
from machpay_gateway.settings.forward_auth import ForwardAuthSettings

SAMPLE = """\
database = "sqlite:///machpay.db"          # or postgresql://…
redis = "redis://127.0.0.1:6379/0"         # also rediss://, redis+sentinel://…, redis+cluster://…
unlisted_routes = "deny"                    # or "authenticated"; the middleware's Python default is "authenticated"
trusted_proxies = ["10.0.0.0/8"]
client_ip_header = "X-Forwarded-For"        # exactly one header is believed, and only from a trusted peer
on_limiter_failure = "local"                # or "deny", "allow"

[upstreams]
live = "http://127.0.0.1:9000"
sandbox = "http://127.0.0.1:9001"

[tiers.enterprise]
rate = "10000/minute"                       # `limits` notation
concurrency = 500
max_keys = 20

[[routes]]
match = "POST /v1/skills/execute"
scopes = "skills:execute"                   # "a b" = all of them; "a | b" = any of them
cost = 1

[[issuers]]                                 # whose JWTs are accepted besides our own
issuer = "https://id.example.com"
audience = "https://api.machpay.xyz"
jwks = "https://id.example.com/jwks.json"   # or a file
algorithms = ["RS256"]
tier = "standard"
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory: no machpay.toml but the test's own."""
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "machpay.toml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def upstreams(**urls: str) -> dict[str, Upstream]:
    return {name: Upstream.of(url) for name, url in urls.items()}


def load(options: Options | None = None, /, **environ: str) -> Settings:
    return load_settings(options, {f"MACHPAY_{name}": value for name, value in environ.items()})


def mistakes(options: Options | None = None, /, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(options, **environ)
    return str(caught.value).split("\n")


def test_with_nothing_set_everything_has_its_default() -> None:
    settings = load()
    assert settings == Settings()
    assert settings.database == "sqlite:///machpay.db"
    assert settings.redis is None
    assert settings.tiers == TIERS
    assert settings.unlisted_routes == "authenticated"
    assert settings.trusted_proxies is None
    assert settings.environments == ("live", "test")
    assert (settings.failure_limit, settings.on_limiter_failure, settings.legacy_headers) == (
        "120/minute",
        "local",
        False,
    )
    server = settings.server
    assert (server.listen, server.management, server.workers) == ("127.0.0.1:8000", "127.0.0.1:9400", 1)
    assert (server.drain_seconds, server.head_seconds, server.keepalive_seconds) == (30.0, 10.0, 75.0)
    assert (server.control_plane, server.access_log, server.log_format) == ("on", "stdout", "text")


def test_the_sample_of_the_documentation_is_accepted() -> None:
    write(SAMPLE)
    settings = load()
    assert settings.redis == "redis://127.0.0.1:6379/0"
    assert settings.unlisted_routes == "deny"
    assert settings.trusted_proxies is not None
    assert settings.trusted_proxies.networks == ("10.0.0.0/8",)
    assert settings.upstreams == upstreams(live="http://127.0.0.1:9000", sandbox="http://127.0.0.1:9001")
    assert settings.tiers == {**TIERS, "enterprise": Tier("10000/minute", 500, max_keys=20)}
    assert settings.routes == (Route("POST /v1/skills/execute", scopes="skills:execute"),)
    assert settings.issuers == (
        Issuer(
            "https://id.example.com",
            audience="https://api.machpay.xyz",
            jwks="https://id.example.com/jwks.json",
            algorithms=["RS256"],
        ),
    )
    assert check_file(Path("machpay.toml")) == []


def test_the_environment_is_over_the_file_and_python_over_both() -> None:
    write('database = "sqlite:///file.db"\nlegacy_headers = true\nclient_ip_header = "X-Real-IP"')
    settings = load({"database": "sqlite:///python.db"}, DATABASE="sqlite:///env.db", CLIENT_IP_HEADER="Forwarded")
    assert settings.database == "sqlite:///python.db"
    assert settings.client_ip_header == "Forwarded"
    assert settings.legacy_headers


def test_a_file_is_named_by_python_before_the_environment_before_the_directory() -> None:
    for name in ("machpay.toml", "env.toml", "python.toml"):
        write(f'database = "sqlite:///{name}"', name)
    assert load().database == "sqlite:///machpay.toml"
    assert load(CONFIG="env.toml").database == "sqlite:///env.toml"
    assert load({"config": Path("python.toml")}, CONFIG="env.toml").database == "sqlite:///python.toml"


@pytest.mark.parametrize(
    "name, value, attribute, expected",
    [
        ("DATABASE", "postgresql://db/x", "database", "postgresql://db/x"),
        ("UNLISTED_ROUTES", "deny", "unlisted_routes", "deny"),
        ("ENVIRONMENTS", "live", "environments", ("live",)),
        ("SCOPES", "reports:read, reports:write", "scopes", ("reports:read", "reports:write")),
        ("LEGACY_HEADERS", "true", "legacy_headers", True),
        ("LEGACY_HEADERS", "false", "legacy_headers", False),
        ("FAILURE_LIMIT", "10/second", "failure_limit", "10/second"),
        ("TRUSTED_PROXIES", "", "trusted_proxies", None),
        ("UPSTREAMS__LIVE", "http://127.0.0.1:9", "upstreams", upstreams(live="http://127.0.0.1:9")),
        ("TIERS__ENTERPRISE__RATE", "5/second", "tiers", {**TIERS, "enterprise": Tier("5/second", 500)}),
        ("TIERS__TEST__MAX_KEYS", "9", "tiers", {**TIERS, "test": Tier("100/minute", 5, max_keys=9)}),
        ("PROXY__CONNECT_SECONDS", "0.5", "proxy", ProxySettings(connect_seconds=0.5)),
        ("FORWARD_AUTH__LEASE_SECONDS", "2.5", "forward_auth", ForwardAuthSettings(2.5)),
        ("TIERS__TEST__CONCURRENCY", "9", "tiers", {**TIERS, "test": Tier("100/minute", 9)}),
    ],
)
def test_the_environment_sets_by_text(name: str, value: str, attribute: str, expected: object) -> None:
    assert getattr(load(**{name: value}), attribute) == expected


def test_a_list_in_the_environment_is_separated_by_commas() -> None:
    proxies = load(TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.1,,2001:db8::/32 ").trusted_proxies
    assert proxies is not None
    assert proxies.networks == ("10.0.0.0/8", "192.0.2.1", "2001:db8::/32")


def test_the_environment_replaces_one_value_of_a_table_and_leaves_the_files_others() -> None:
    write(
        '[tiers.gold]\nrate = "7/minute"\nconcurrency = 7\n[tiers.standard]\nrate = "8/minute"\n'
        '[upstreams]\nlive = "http://127.0.0.1:1"\nsandbox = "http://127.0.0.1:2"\n'
    )
    settings = load(TIERS__GOLD__CONCURRENCY="9", UPSTREAMS__LIVE="http://127.0.0.1:3")
    assert settings.tiers["gold"] == Tier("7/minute", 9)
    assert settings.tiers["standard"] == Tier("8/minute", 50)
    assert settings.upstreams == upstreams(live="http://127.0.0.1:3", sandbox="http://127.0.0.1:2")


def test_a_service_may_come_from_the_environment_and_python() -> None:
    write('[services.billing]\nlive = "http://127.0.0.1:1/base"\nbalance = "round_robin"\nhost = "upstream"\n')
    settings = load(SERVICES__BILLING__SANDBOX="http://127.0.0.1:2", SERVICES__BILLING__VIA="false")
    billing = settings.services["billing"]
    assert {name: str(upstream.origins[0]) for name, upstream in billing.items()} == {
        "live": "http://127.0.0.1:1",
        "sandbox": "http://127.0.0.1:2",
    }
    assert (billing["live"].path, billing["live"].options.balance) == ("/base", "round_robin")
    assert billing.options == {"host": "upstream", "via": False}
    options: Options = {"services": {"billing": {"host": "a.test"}}, "routes": [Route("GET /a", service="billing")]}
    settings = load_settings(options, {})
    assert settings.route_options().of(settings.routes[0]).host == "a.test"


@pytest.mark.parametrize("name", ["API_KEY", "ADMIN_KEY", "ACCESS_TOKEN", "BASE_URL", "AUTH_URL"])
def test_the_variables_of_the_sdk_are_none_of_ours(name: str) -> None:
    assert load(**{name: "anything"}) == Settings()


def test_variables_of_others_are_left_alone() -> None:
    assert load_settings(None, {"PATH": "/bin", "machpay_database": "x", "XMACHPAY_DATABASE": "x"}) == Settings()


def test_python_gives_ready_values() -> None:
    settings = load(
        {
            "routes": [Route("GET /a"), Route("GET /b", public=True)],
            "tiers": {"gold": Tier("5/minute", 1)},
            "trusted_proxies": ["10.0.0.0/8"],
            "environments": ["test"],
            "redis": None,
            "scopes": ["a:b"],
        }
    )
    assert [route.match for route in settings.routes] == ["GET /a", "GET /b"]
    assert settings.tiers == {**TIERS, "gold": Tier("5/minute", 1)}  # merged over the defaults
    assert settings.environments == ("test",)


def test_a_mistake_in_the_environment_names_the_variable_the_value_and_the_range() -> None:
    assert mistakes(TRUSTED_PROXIES="10.0.0.0/33") == [
        "MACHPAY_TRUSTED_PROXIES: '10.0.0.0/33' is not a network (prefix is 0–32)"
    ]


def test_a_mistake_in_a_table_of_the_environment_names_the_whole_variable() -> None:
    (message,) = mistakes(UPSTREAMS__LIVE="ftp://x")
    assert message.startswith("MACHPAY_UPSTREAMS__LIVE: 'ftp://x' is not an http:// or https:// address")


def test_a_mistake_in_the_file_names_the_line() -> None:
    write('database = "sqlite:///x"\n\ntrusted_proxies = [\n  "10.0.0.0/8",\n  "10.1",\n]\n')
    (message,) = mistakes()
    assert message.startswith("machpay.toml:3: trusted_proxies[1]: '10.1' is not a network: ")


def test_a_mistake_in_python_names_the_argument() -> None:
    (message,) = mistakes({"trusted_proxies": ["10.0.0.0/8", "10.0.0.1/8"]})
    assert message.startswith("trusted_proxies[1]: '10.0.0.1/8' has host bits set")


def test_all_mistakes_are_told_at_once() -> None:
    write(
        'databse = "x"\nlegacy_headers = "yes"\n[[routes]]\nmatch = "GET x"\n[[routes]]\nmatch = "GET /a"\ncost = -1\n'
    )
    message = mistakes({"client_ip_header": "Cookie"}, FAILURE_LIMIT="often", REDS="x")
    assert [line.split(" ")[0] for line in message] == [
        "MACHPAY_REDS:",
        "MACHPAY_FAILURE_LIMIT:",
        "client_ip_header:",
        "machpay.toml:1:",
        "machpay.toml:2:",
        "machpay.toml:4:",
        "machpay.toml:7:",
    ]


def test_a_value_that_a_later_source_replaces_is_not_read() -> None:
    write('failure_limit = "often"')
    assert load_settings(environ={"MACHPAY_FAILURE_LIMIT": "10/second"}).failure_limit == "10/second"


@pytest.mark.parametrize(
    "name, suggestion",
    [("TRUSTED_PROXY", "TRUSTED_PROXIES"), ("DATABSE", "DATABASE"), ("UPSTREAM__LIVE", "UPSTREAMS")],
)
def test_a_mistyped_variable_is_told_with_the_one_that_was_meant(name: str, suggestion: str) -> None:
    (message,) = mistakes(**{name: "x"})
    assert message.startswith(f"MACHPAY_{name}: 'MACHPAY_{name}' is not a setting here; ")
    assert f"MACHPAY_{suggestion}" in message


def test_a_name_that_is_like_nothing_is_told_with_all_there_are() -> None:
    write("zzz = 1")
    (message,) = mistakes()
    assert message.startswith(
        "machpay.toml:1: zzz: 'zzz' is not a setting here; known: anonymous, application, assertion, brand, "
    )


@pytest.mark.parametrize("environ", [{"TIERS": "x"}, {"TIERS__GOLD": "x"}, {"DATABASE": "sqlite:///x"}])
def test_a_variable_that_is_both_a_value_and_a_table_is_a_mistake(environ: dict[str, str]) -> None:
    deeper = {f"{next(iter(environ))}__RATE__X": "5/minute"}
    assert mistakes(**environ, **deeper)
    assert mistakes(**deeper, **environ)


@pytest.mark.parametrize("how", ["python", "environment"])
def test_a_named_file_that_is_not_there_is_a_mistake(how: str) -> None:
    message = mistakes({"config": "nowhere.toml"}) if how == "python" else mistakes(CONFIG="nowhere.toml")
    assert message == ["nowhere.toml: there is no such file; `machpay-gateway init` writes one"]


def test_a_file_that_cannot_be_read_is_a_mistake() -> None:
    Path("machpay.toml").mkdir()
    assert mistakes()[0].startswith("machpay.toml: cannot be read: ")
    Path("latin.toml").write_bytes(b"# caf\xe9\n")
    assert mistakes(CONFIG="latin.toml")[0].startswith("latin.toml: cannot be read: ")


@pytest.mark.parametrize("text", ["database = ", "[tiers", "a = 1\na = 2", "database = 'x' y", "\ufeffdatabase = 'x'"])
def test_a_file_that_is_no_toml_is_a_mistake(text: str) -> None:
    write(text)
    (message,) = mistakes()
    assert message.startswith("machpay.toml: ")
    assert "(at " in message  # the line, or the end of the document


def test_check_file_tells_every_mistake_of_a_file_and_nothing_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MACHPAY_DATABASE", "nonsense")
    path = Path(write('redis = "http://x"\nfailure_limit = 5\n', "other.toml"))
    assert [line.split(": ")[0] for line in check_file(path)] == ["other.toml:1", "other.toml:2"]
    assert len(check_file(Path("nowhere.toml"))) == 1


@pytest.mark.parametrize(
    "environ",
    [
        {"REDIS": "redis://a", "redis": "redis://b"},  # one of them would be ignored
        {"TIERS": "gold", "TIERS__GOLD__RATE": "5/minute"},
        {"TIERS__GOLD__RATE": "5/minute", "tiers": "gold"},
    ],
)
def test_variables_that_set_the_same_setting_twice_are_refused(environ: dict[str, str]) -> None:
    assert any("a part of it is set as a value of its own" in message for message in mistakes(**environ))


MAPPED_ISSUER = """
[[issuers]]
issuer = "https://id.example.com/realms/acme"
audience = "client-7"
audience_claim = "azp"
subject_claim = "email"
scopes_claim = ["scope", ["resource_access", "my.api", "roles"]]
scope_map = { admin = "skills:execute skills:list", reader = ["skills:list"] }
account_claim = ["https://example.com/org"]
owner_claim = "team"
tier_claim = "plan"
tier_map = { gold = "enterprise" }
ca_file = "/etc/ca.pem"

[issuers.require]
email_verified = true
ref = ["refs/heads/main", "refs/heads/next"]
"kubernetes.io".namespace = "prod"
"""


def test_the_claims_of_an_issuer_are_set_alike_by_file_environment_and_python() -> None:
    write(MAPPED_ISSUER)
    (issuer,) = load().issuers
    tables = tomllib.loads(MAPPED_ISSUER)["issuers"]
    assert issuer == Issuer(**tables[0])
    assert issuer.jwks is None
    assert issuer.require is not None
    assert issuer.require["kubernetes.io"] == {"namespace": "prod"}
    write("")
    assert load(ISSUERS=json.dumps(tables)).issuers == (issuer,)
    assert load({"issuers": tables}).issuers == load({"issuers": [issuer]}).issuers == (issuer,)


def test_routes_can_be_set_in_the_environment() -> None:
    write('[[routes]]\nmatch = "GET /a"')
    routes = [{"match": "POST /b", "scopes": "skills:execute", "limit": {"rate": "5/minute"}}]
    (route,) = load(ROUTES=json.dumps(routes)).routes
    assert route == Route("POST /b", scopes="skills:execute", limit=RouteLimit("5/minute"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("nonsense", "MACHPAY_ISSUERS: is a list of tables: in the environment, write it as JSON, as in"),
        ('{"issuer": "https://i.example"}', "MACHPAY_ISSUERS: is a list of tables"),
        ("[5]", "MACHPAY_ISSUERS: 5 is not a table"),
        ('[{"issuer": "https://i.example"}]', "MACHPAY_ISSUERS: lacks audience"),
        (
            '[{"issuer": "https://i.example", "audience": "a", "scope_claim": "x"}]',
            "MACHPAY_ISSUERS: [0].scope_claim: 'scope_claim' is not a setting here; did you mean 'scopes_claim'?",
        ),
    ],
)
def test_a_mistake_in_tables_of_the_environment_is_described(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(ISSUERS=text)
    assert str(caught.value).startswith(message)
