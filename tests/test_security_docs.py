"""What docs/security.md says is compared with the code: lists, numbers, and a row for each requirement of ASVS."""

import hmac
import math
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from hashlib import sha256
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
from argon2 import extract_parameters
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from machpay_gateway import Gateway
from machpay_gateway.core.accounts.user import MAX_PASSWORD, MIN_PASSWORD
from machpay_gateway.core.decision.credential import PROOF_ALGORITHMS
from machpay_gateway.core.decision.credential_settings import CredentialSettings
from machpay_gateway.core.jose.assertion import AssertionSettings
from machpay_gateway.core.jose.issuer import ASYMMETRIC, SYMMETRIC
from machpay_gateway.core.jose.session import MAX_SECONDS, secret_fingerprint
from machpay_gateway.core.jose.signing import ALGORITHM, PUBLISH_BEFORE_SIGNING_SECONDS
from machpay_gateway.core.keys.audit import ActorKind
from machpay_gateway.core.keys.key import DAY_SECONDS, ENTROPY_BYTES, MAX_GRACE_SECONDS, checksum
from machpay_gateway.core.keys.leak import LeakSettings
from machpay_gateway.core.network.cors import CorsSettings
from machpay_gateway.core.network.proxy_settings import ProxySettings
from machpay_gateway.core.oauth.grant import CODE_SECONDS
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, mint
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.core.usage.counters import DAY, HOUR, MINUTE
from machpay_gateway.keysets.sealing import seal
from machpay_gateway.services.passwords import Passwords
from machpay_gateway.services.users import random_password
from machpay_gateway.settings.console import ConsoleSettings
from machpay_gateway.settings.fields import FIELDS
from machpay_gateway.settings.forward_auth import ForwardAuthSettings
from machpay_gateway.settings.model import Settings
from machpay_gateway.settings.server import ServerSettings
from machpay_gateway.stores.schema import METADATA, USERS
from machpay_gateway.stores.sql.secret import secret_beside
from machpay_gateway.web.browser import csrf_token

ROOT = Path(__file__).parent.parent
PAGE, POLICY = ROOT / "docs" / "security.md", ROOT / "SECURITY.md"
MET, NOT_APPLICABLE, OPEN = STATUSES = ("met", "not applicable", "open")

# The requirements of ASVS 5.0.0 in the chapters that the page answers, by their level.
LEVELS = {
    1: """
        6.1.1 6.2.1 6.2.2 6.2.3 6.2.4 6.2.5 6.2.6 6.2.7 6.2.8 6.3.1 6.3.2 6.4.1 6.4.2
        7.2.1 7.2.2 7.2.3 7.2.4 7.4.1 7.4.2
        8.1.1 8.2.1 8.2.2 8.3.1
        9.1.1 9.1.2 9.1.3 9.2.1
        10.4.1 10.4.2 10.4.3 10.4.4 10.4.5
        14.2.1 14.3.1
    """,
    2: """
        6.1.2 6.1.3 6.2.9 6.2.10 6.2.11 6.2.12 6.3.3 6.3.4 6.4.3 6.4.4 6.5.1 6.5.2 6.5.3 6.5.4 6.5.5 6.6.1 6.6.2 6.6.3
        6.8.1 6.8.2 6.8.3 6.8.4
        7.1.1 7.1.2 7.1.3 7.3.1 7.3.2 7.4.3 7.4.4 7.4.5 7.5.1 7.5.2 7.6.1 7.6.2
        8.1.2 8.2.3 8.4.1
        9.2.2 9.2.3 9.2.4
        10.1.1 10.1.2 10.2.1 10.2.2 10.3.1 10.3.2 10.3.3 10.3.4 10.4.6 10.4.7 10.4.8 10.4.9 10.4.10 10.4.11
        10.5.1 10.5.2 10.5.3 10.5.4 10.5.5 10.6.1 10.6.2 10.7.1 10.7.2 10.7.3
        14.1.1 14.1.2 14.2.2 14.2.3 14.2.4 14.3.2 14.3.3
        16.1.1 16.2.1 16.2.2 16.2.3 16.2.4 16.2.5 16.3.1 16.3.2 16.3.3 16.3.4 16.4.1 16.4.2 16.4.3 16.5.1 16.5.2 16.5.3
    """,
}


def constant(module: str, name: str) -> Any:  # noqa: ANN401 - of any type
    """Return a constant of the package, also one that its module keeps to itself."""
    return getattr(import_module(f"machpay_gateway.{module}"), name)


def section(title: str) -> str:
    """Return what stands below the heading *title* of the page, up to the next one of its level."""
    found = re.search(rf"^(##+) {re.escape(title)}\n(.*?)(?=^\1 |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[2]


def tables(text: str) -> Iterator[list[list[str]]]:
    """Yield the rows of each table in *text*, without its head."""
    for block in re.findall(r"^\|.*\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE):
        yield [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]


def table(title: str) -> dict[str, list[str]]:
    """Return the first table below *title*: the cells of each row by the first one."""
    rows = next(tables(section(title)))
    assert len({row[0] for row in rows}) == len(rows)
    return {re.sub("^`([^`]*)`$", r"\1", row[0]): row[1:] for row in rows}


def requirements() -> list[list[str]]:
    return [row for rows in tables(section("OWASP ASVS 5.0.0")) for row in rows]


def links(text: str) -> list[str]:
    return re.findall(r"\]\((?!https?:)([^)]+)\)", text)


# What is answered of ASVS


def test_each_requirement_of_levels_1_and_2_has_one_row() -> None:
    expected = {number: str(level) for level, numbers in LEVELS.items() for number in numbers.split()}
    rows = requirements()
    assert [row[0] for row in rows] == sorted(expected, key=lambda number: [int(part) for part in number.split(".")])
    assert {row[0]: row[1] for row in rows} == expected


@pytest.mark.parametrize("row", requirements(), ids=lambda row: row[0])
def test_a_row_links_tests_that_are_there_or_says_why_there_are_none(row: list[str]) -> None:
    _, _, asks_for, status, answer = row
    assert asks_for
    assert status in STATUSES
    shown_by = [link for link in links(answer) if link.endswith(".py")]
    if status == MET:
        assert shown_by
        assert all(re.fullmatch(r"\.\./tests/(\w+/)*test_\w+\.py", link) for link in shown_by)
        assert [link for link in shown_by if not (PAGE.parent / link).is_file()] == []
    else:
        assert shown_by == []
        assert len(answer.split()) >= 3  # a reason, not a word


@pytest.mark.parametrize("page", [PAGE, POLICY], ids=lambda page: page.name)
def test_every_link_leads_to_a_page_and_to_its_heading(page: Path) -> None:
    for link in links(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, link


def test_the_page_and_the_policy_lead_to_each_other() -> None:
    assert "../SECURITY.md" in links(PAGE.read_text())
    assert "docs/security.md" in links(POLICY.read_text())
    addresses = [set(re.findall(r"[\w.]+@[\w.]+\w", page.read_text())) for page in (PAGE, POLICY)]
    assert addresses == [{"security@machpay.xyz"}] * 2


# What is protected, and how


def test_every_table_of_the_database_is_an_asset_with_a_level() -> None:
    assets, levels = tables(section("What is protected"))
    named = {name for row in assets for name in re.findall(r"`([a-z_]+)`", row[2])}
    assert named == set(METADATA.tables)
    assert {row[1] for row in assets} - {"the upstream's"} == {row[0] for row in levels}
    kept = [f"{bucket.retention_seconds // DAY_SECONDS}" for bucket in (MINUTE, HOUR, DAY)]
    assert "{}, {} and {} days".format(*kept) in {row[4] for row in assets}


def test_the_authentication_methods_are_the_actors_of_the_audit_log() -> None:
    assert set(table("Authentication methods")) == set(get_args(ActorKind))


def test_the_inventory_is_what_the_code_uses(tmp_path: Path) -> None:
    bits = math.floor(constant("core.keys.key", "_BODY_LENGTH") * math.log2(62))
    secret = (
        f"{constant('core.keys.key', '_BODY_LENGTH')} base62 characters, {bits} bits, of {ENTROPY_BYTES} random bytes"
    )
    generated = len(random_password()) // 2
    nonces = constant("keysets.sealing", "_NONCE_BYTES"), constant("admin.idempotency", "_NONCE_BYTES")
    assert (constant("keysets.sealing", "_KEY_BYTES"), constant("admin.idempotency", "_KEY_BYTES")) == (
        32,
        32,
    )  # AES-256
    file = tmp_path / "keys.db.secret"
    made = len(secret_beside(tmp_path / "keys.db")) // 2
    least = constant("core.jose.token", "_MIN_RSA_BITS")
    hmacs = "{}, {} and {}".format(*constant("core.jose.token", "_MIN_SECRET_BYTES").values())
    assert constant("keysets.assertions", "_MIN_RSA_BITS") == least
    assert ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).minimum_version is ssl.TLSVersion.TLSv1_2
    curves = ", ".join(constant("keysets.assertions", "_EC_ALGORITHMS").values())
    expected = {
        "randomness": ("the system's", "`os.urandom`"),
        "secrets of API keys": ("SHA-256", secret),
        "codes, refresh tokens, client secrets, session cookies": ("SHA-256", secret),
        "checksum of these": ("CRC-32", f"{constant('core.keys.key', '_CHECKSUM_LENGTH')} base62 characters"),
        "passwords": ("argon2id", "65536 KiB, 3 passes, 4 lanes, 16-byte salt, 32-byte hash"),
        "generated passwords": ("hexadecimal", f"{generated} random bytes, {generated * 8} bits"),
        "signatures of access and session tokens": (ALGORITHM, f"RSA, {constant('keysets.signing', '_BITS')} bits"),
        "private signing keys at rest": (
            "AES-256-GCM",
            f"key by HKDF-SHA-256 of `secret_key`, {nonces[0]}-byte random nonce, bound to the key's id",
        ),
        "generated `secret_key` next to SQLite": (
            "hexadecimal",
            f"{made} random bytes, file mode {file.stat().st_mode & 0o777:o}",
        ),
        "stored responses at rest": (
            "AES-256-GCM",
            f"key by HKDF-SHA-256 of the caller's secret, {nonces[1]}-byte random nonce, bound to the request",
        ),
        "refresh token after a lost response": ("HMAC-SHA-256", f"{ENTROPY_BYTES}-byte seed"),
        "CSRF tokens": ("HMAC-SHA-256", "key: the browser's cookie"),
        "device cookies, sign-in passes": (
            "HMAC-SHA-256",
            f"key: the user's password hash; {constant('core.accounts.device', 'NONCE_BYTES')}-byte nonce",
        ),
        "fingerprints of secrets in session tokens": ("SHA-256", f"cut to {len(secret_fingerprint(b'')) * 4} bits"),
        "tokens of issuers": (
            ", ".join((*ASYMMETRIC, *SYMMETRIC)),
            f"those that the issuer lists; RSA from {least} bits, HMAC secrets from {hmacs} bytes",
        ),
        "DPoP proofs": (", ".join(PROOF_ALGORITHMS), "`jti` once, `ath` by SHA-256, thumbprint by SHA-256"),
        "PKCE": (constant("core.oauth.pkce", "METHOD"), "SHA-256, verifier of 43 to 128 characters"),
        "assertions for upstreams": (f"RS256, {curves}, Ed25519", f"RSA from {least} bits"),
        "leak reports": ("ECDSA with SHA-256", constant("core.jose.scanner", "_CURVE")),
        "audit log": ("SHA-256", "each digest covers the row and the digest before"),
        "names in Redis": ("BLAKE2b", f"{constant('limiters.redis.limiter', '_DIGEST_BYTES')} bytes"),
        "TLS of callers and upstreams": (
            "TLS 1.2 or later",
            "Python's defaults, certificate and name verified for upstreams, issuers and scanners",
        ),
    }
    assert {purpose: (cells[0], cells[1]) for purpose, cells in table("Cryptography").items()} == expected


async def test_a_password_is_hashed_as_the_inventory_says() -> None:
    used = extract_parameters(await Passwords().compute_hash("correct horse"))
    assert used.type.name == "ID"
    told = f"{used.memory_cost} KiB, {used.time_cost} passes, {used.parallelism} lanes"
    assert table("Cryptography")["passwords"][1] == f"{told}, {used.salt_len}-byte salt, {used.hash_len}-byte hash"


def test_what_is_sealed_opens_by_the_algorithms_that_the_inventory_names() -> None:
    secret_key, info = b"s" * 32, constant("keysets.sealing", "_INFO")
    key = HKDF(SHA256(), 32, salt=None, info=info).derive(secret_key)
    sealed = seal(b"a private key", secret_key, "kid-1")
    assert AESGCM(key).decrypt(sealed[:12], sealed[12:], b"kid-1") == b"a private key"


def test_form_tokens_and_secrets_are_made_by_the_algorithms_that_the_inventory_names() -> None:
    cookie = mint(OpaqueTokenKind.BROWSER, bytes(ENTROPY_BYTES))
    assert csrf_token(cookie, "/sign-in", b"a=b") == hmac.new(cookie.encode(), b"/sign-in\na=b", "sha256").hexdigest()
    assert constant("core.keys.key", "secret_digest")(cookie.encode()) == sha256(cookie.encode()).digest()
    assert checksum(b"123456789") == constant("core.keys.key", "base62")(0xCBF43926, 6).encode()  # CRC-32's check value


def test_the_lifetimes_are_those_of_the_code() -> None:
    hours, day = 3600, DAY_SECONDS
    most_minutes = constant("settings.console", "_MAX_MINUTES")
    longest, days = constant("core.oauth.settings", "_LONGEST_TOKEN_SECONDS"), "_LONGEST_DAYS"
    most_days = f"{constant('core.oauth.settings', days)} days"
    grace = constant("core.oauth.settings", "_LONGEST_GRACE_SECONDS")
    signed_in = f"{constant('services.users', 'SIGN_IN_SECONDS') / hours:g} hours"
    device = f"{constant('core.accounts.device', 'DEVICE_SECONDS') / day:g} days"
    passed = f"{constant('core.accounts.device', 'PASS_SECONDS') / 60:g} minutes"
    fixed = {
        "authorization code": CODE_SECONDS,
        "DPoP proof, before and after now": constant("core.oauth.dpop", "FRESH_SECONDS"),
        "leeway for `exp`, `nbf` and `iat`": constant("core.jose.claims", "LEEWAY_SECONDS"),
        "signing key, published before it signs": PUBLISH_BEFORE_SIGNING_SECONDS,
        "verified token of an issuer, cached": constant("keysets.issued", "VERIFIED_SECONDS"),
        "session token": MAX_SECONDS,
    }
    expected = {
        "browser session, absolute": (signed_in, signed_in),
        "browser session, idle": (
            f"{default(ConsoleSettings, 'idle_minutes')} minutes",
            f"{most_minutes / 60:g} hours",
        ),
        "password confirmation, valid for issuing secrets": (
            f"{default(ConsoleSettings, 'confirm_minutes')} minutes",
            f"{most_minutes / 60:g} hours",
        ),
        "device cookie": (device, device),
        "sign-in pass, which signs nobody in": (passed, passed),
        "access token": (f"{default(OAuthSettings, 'access_token_seconds')} seconds", f"{longest} seconds"),
        "refresh token, unused": (f"{default(OAuthSettings, 'refresh_token_days')} days", most_days),
        "refresh token family": (f"{default(OAuthSettings, 'family_days')} days", most_days),
        "retry of a refresh after a lost response": (
            f"{default(OAuthSettings, 'refresh_grace_seconds')} seconds",
            f"{grace} seconds",
        ),
        "previous secret of a key after a rotation": (f"{DAY_SECONDS} seconds", f"{MAX_GRACE_SECONDS} seconds"),
        "cached key, trusted while the database is unavailable": (
            f"{default(Settings, 'trust_seconds'):g} seconds",
            f"{constant('settings.fields', '_MOST_TRUST_SECONDS')} seconds",
        ),
        "assertion": (
            f"{default(AssertionSettings, 'lifetime_seconds')} seconds",
            f"{constant('core.jose.assertion', '_LONGEST_SECONDS')} seconds",
        ),
        **{what: (f"{seconds:g} seconds", f"{seconds:g} seconds") for what, seconds in fixed.items()},
    }
    assert {what: (cells[0], cells[2]) for what, cells in table("Sessions and lifetimes").items()} == expected


def test_the_budgets_of_sign_ins_are_those_of_the_code() -> None:
    names = {
        "known browser": "_OF_DEVICE",
        "address block": "_OF_BLOCK",
        "email from a block": "_OF_EMAIL_FROM_BLOCK",
        "familiar blocks": "_FAMILIAR",
        "first attempts": "_FIRST",
        "further attempts": "_FURTHER",
        "password confirmation": "_OF_CONFIRMING",
    }
    told = {budget: cells[0] for budget, cells in table("Password guessing").items()}
    assert told == {budget: constant("services.sign_in_limits", name).rate for budget, name in names.items()}
    text = " ".join(section("Password guessing").split())
    hourly = sum(constant("services.sign_in_limits", name).limit for name in ("_FAMILIAR", "_FURTHER")) + 3600 // 450
    assert f"{hourly} attempts an hour" in text
    waiting, of_one = constant("services.passwords", "_MOST_WAITING"), constant("services.passwords", "_MOST_OF_ONE")
    assert f"at most {waiting} attempts from unknown browsers wait, {of_one} of one block" in text
    assert f"within {constant('core.accounts.user', 'FAMILIAR_SECONDS') / DAY_SECONDS:g} days" in text
    assert f"within {constant('core.accounts.device', 'DEVICE_SECONDS') / DAY_SECONDS:g} days" in text


def test_the_rules_for_passwords_are_those_of_the_code() -> None:
    text = " ".join(section("Password guessing").split())
    assert f"{MIN_PASSWORD} to {MAX_PASSWORD} characters" in text
    assert f"below 10^{constant('services.password_rules', '_GUESSES_LOG10'):g} guesses" in text
    words = ", ".join(f"`{word}`" for word in constant("services.password_rules", "_OURS"))
    assert f"the name of the account, {words}." in text


# Settings and logs

CLASSES: dict[str, type] = {
    "credentials": CredentialSettings,
    "cors": CorsSettings,
    "proxy": ProxySettings,
    "server": ServerSettings,
    "console": ConsoleSettings,
    "oauth": OAuthSettings,
    "leaks": LeakSettings,
    "assertion": AssertionSettings,
    "forward_auth": ForwardAuthSettings,
}


def default(of: type, name: str) -> object:
    """Return the default of a field; None for one that has to be given."""
    (found,) = [field for field in fields(of) if field.name == name]
    made = found.default if found.default_factory is MISSING else found.default_factory()
    return None if made is MISSING else made


def default_of(setting: str) -> object:
    table_name, _, name = setting.partition(".")
    assert table_name in FIELDS
    return default(CLASSES[table_name], name) if name else default(Settings, setting)


def test_each_setting_that_weakens_is_one_with_its_default() -> None:
    rows = table("Settings that matter")
    told = {name.strip(" `"): cells[0].strip("`") for names, cells in rows.items() for name in names.split(",")}
    shown = {name: _shown(default_of(name)) for name in told}
    # What is not a default of a field: a file that is made, and a table of one setting.
    shown |= {"secret_key": "a file beside a SQLite database", "forward_auth": "lease_seconds = 0"}
    assert told == shown
    assert default(ForwardAuthSettings, "lease_seconds") == 0


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None or value == () else str(value)


@pytest.mark.parametrize("title", ["Sessions and lifetimes", "Settings that matter"])
def test_every_setting_that_is_named_is_one(title: str) -> None:
    named = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", section(title)))
    for setting in named:
        table_name, _, name = setting.partition(".")
        assert name in {field.name for field in fields(CLASSES[table_name])}, setting


def test_the_logs_are_named_as_they_are_configured_and_kept() -> None:
    rows = table("Logs")
    assert list(rows) == ["process log", "access log", "audit log", "usage", "metrics", "traces"]
    assert {"`log_format`", "`access_log`"} <= set(re.findall(r"`\w+`", str(rows)))
    assert {field.name for field in fields(ServerSettings)} >= {"log_format", "access_log"}
    tables_named = re.findall(r"`(\w+)`", rows["audit log"][2] + rows["usage"][2])
    assert set(tables_named) <= set(METADATA.tables)
    assert "traces" in FIELDS


# What rows of the table stand on, where no other test shows it


async def test_a_new_database_has_no_account_no_user_and_no_key(tmp_path: Path) -> None:
    async with Gateway(database=f"sqlite:///{tmp_path / 'keys.db'}") as gateway:
        assert list(await gateway.accounts.list()) == []
        assert list(await gateway.users.list()) == []
        assert list(await gateway.keys.list(None)) == []


def test_a_user_has_no_hint_no_question_and_no_day_on_which_a_password_expires() -> None:
    assert set(USERS.columns.keys()) == {
        "id", "account_id", "email", "password", "created_at", "disabled_at", "role", "devices_from",
    }  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        pytest.param("Correct horse Ünïcode " + "x" * 43, id="case of one letter"),
        pytest.param("correct horse Ünïcode " + "x" * 42, id="one character less after 64"),
        pytest.param("correct horse Ünïcode " + "x" * 43 + " ", id="a blank at the end"),
        pytest.param("correct horse U\u0308nïcode " + "x" * 43, id="another form of Unicode"),
    ],
)
async def test_a_password_of_more_than_64_characters_is_compared_exactly(other: str) -> None:
    password, passwords = "correct horse Ünïcode " + "x" * 43, Passwords()
    assert len(password) > 64
    assert len(password) <= MAX_PASSWORD
    kept = await passwords.compute_hash(password)
    assert await passwords.is_right(password, kept)
    assert not await passwords.is_right(other, kept)


TEMPLATES = sorted((ROOT / "machpay_gateway").glob("*/templates/*.html"))
SCRIPTS = sorted((ROOT / "machpay_gateway").glob("*/static/*.js"))


class _Inputs(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "input":
            self.found.append(dict(attrs))


def _is_of_a_password(found: Mapping[str, str | None]) -> bool:
    return any("password" in (found.get(name) or "") for name in ("name", "type", "autocomplete"))


def test_password_fields_are_masked_and_left_to_password_managers_and_paste() -> None:
    asked = []
    for template in TEMPLATES:
        inputs = _Inputs()
        inputs.feed(template.read_text())
        asked += [found for found in inputs.found if _is_of_a_password(found)]
    assert len(asked) >= 2  # both sign-in pages
    for found in asked:
        assert found["type"] == "password"
        assert found["autocomplete"] in {"current-password", "new-password"}
        assert not any(name.startswith("on") for name in found)
    own = [script.read_text() for script in SCRIPTS if not script.name.endswith(".min.js")]
    assert not [text for text in own if "paste" in text]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_no_script_keeps_anything_in_the_browser(script: Path) -> None:
    assert not re.findall(r"localStorage|sessionStorage|indexedDB|document\.cookie|caches\.open", script.read_text())


def test_every_page_for_a_user_has_a_button_to_sign_out() -> None:
    bases = {
        template.name: base[1]
        for template in TEMPLATES
        if template.parts[-3] == "console" and (base := re.match(r'{% extends "(\w+\.html)" %}', template.read_text()))
    }
    without = {name for name, base in bases.items() if base == "layout.html"}
    assert without == {"error.html", "frame.html", "sign_in.html"}
    (frame,) = [template for template in TEMPLATES if template.name == "frame.html"]
    assert 'action="{{ base }}/sign-out"' in frame.read_text()
    (consent,) = [template for template in TEMPLATES if template.name == "consent.html"]
    assert 'action="{{ sign_out }}"' in consent.read_text()
