"""The TypeScript client: its own tests, what its package has, and the TypeScript of the public guide as it is written.

It is built in a copy of its sources, once for all processes that test at the same time; the checkout stays as it is.
"""

import asyncio
import json
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from filelock import FileLock

from machpay_gateway import Gateway
from machpay_gateway.cli.demo import load_sample
from machpay_gateway.core.scopes import KNOWN_SCOPES
from machpay_gateway.server import create_app
from tests.node import NODE, NPM, done, hindrance, shared_directory
from tests.servers import serving

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "clients" / "typescript"
GUIDE = ROOT.parent / "shared" / "guide" / "authentication.md"
COMPILER_OPTIONS = {
    "target": "ES2022",
    "lib": ["ES2022", "DOM"],
    "types": [],
    "module": "NodeNext",
    "strict": True,
    "exactOptionalPropertyTypes": True,
}
IMPORT = "import { MachPay } from '@machpay/sdk';"


HINDRANCE = hindrance("the TypeScript client is tested")
pytestmark = [
    pytest.mark.skipif(bool(HINDRANCE), reason=HINDRANCE),
    pytest.mark.xdist_group("typescript"),
    pytest.mark.timeout(300),  # packages are fetched and compiled before the first test
]


@dataclass(frozen=True)
class Built:
    """The sources with what is built of them, and the package as it would be published. Tests change neither."""

    root: Path
    archive: Path

    @property
    def compiler(self) -> Path:
        return self.root / "node_modules" / "typescript" / "bin" / "tsc"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    shared = shared_directory(tmp_path_factory)
    root, archive = shared / "typescript", shared / "typescript.tgz"
    with FileLock(shared / "typescript.lock"):
        if not archive.exists():  # which is made last
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(SOURCES, root, ignore=shutil.ignore_patterns("node_modules", "dist"))
            done([NPM, "ci", "--no-audit", "--no-fund"], root)
            done([NPM, "run", "build"], root)
            packed = json.loads(done([NPM, "pack", "--json", "--ignore-scripts"], root))
            (root / one(packed)["filename"]).rename(archive)
    return Built(root, archive)


@dataclass(frozen=True)
class Application:
    """A project that has the package installed as it would be published."""

    root: Path
    compiler: Path

    def compiled(self, *parts: str) -> Path:
        """Return the program that *parts* are compiled to, one after the other in one file."""
        (self.root / "program.ts").write_text("\n".join(parts))
        done([NODE, str(self.compiler), "--project", "."], self.root)
        return self.root / "program.js"

    def run(self, *parts: str, **environment: str) -> Any:  # noqa: ANN401 - whatever JSON the program prints
        """Compile *parts*, and return what they print."""
        return json.loads(done([NODE, str(self.compiled(*parts))], self.root, **environment))


@pytest.fixture
def application(built: Built, tmp_path: Path) -> Application:
    modules = tmp_path / "node_modules" / "@machpay"
    modules.mkdir(parents=True)
    with tarfile.open(built.archive) as archive:
        archive.extractall(modules, filter="data")
    (modules / "package").rename(modules / "sdk")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": COMPILER_OPTIONS, "files": ["program.ts"]}))
    return Application(tmp_path, built.compiler)


def one(packed: Any) -> Any:  # noqa: ANN401 - npm's JSON
    """Return the only package that npm tells of: in a list, or by its name, as its version likes it."""
    (found,) = packed.values() if isinstance(packed, Mapping) else packed
    return found


def test_the_clients_own_tests_pass(built: Built) -> None:
    told = done([NPM, "test", "--ignore-scripts"], built.root)  # without those before it: it is built already
    assert int(re.findall(r"^(?:#|ℹ) pass (\d+)$", told, re.MULTILINE)[0]) > 200  # noqa: RUF001 - node's own sign


def test_the_types_hold_what_they_promise_to_an_application_of_nodejs(built: Built) -> None:
    done([NODE, str(built.compiler), "--project", "tests"], built.root)


def test_the_package_has_what_runs_and_its_types_and_nothing_else(built: Built) -> None:
    packed = json.loads(done([NPM, "pack", "--dry-run", "--json", "--ignore-scripts"], built.root))
    modules = {path.relative_to(SOURCES / "src").with_suffix("") for path in (SOURCES / "src").rglob("*.ts")}
    compiled = {f"dist/{module.as_posix()}{suffix}" for module in modules for suffix in (".js", ".d.ts")}
    assert {file["path"] for file in one(packed)["files"]} == {"LICENSE", "README.md", "package.json", *compiled}


def test_the_licence_is_the_repositorys() -> None:
    assert (SOURCES / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


# The gateway, as it is served


@dataclass(frozen=True)
class Served:
    """The sample API behind a gateway with the key API, and an admin's secret."""

    url: str
    secret: str

    @property
    def environment(self) -> dict[str, str]:
        return {"MACHPAY_BASE_URL": self.url, "MACHPAY_API_KEY": self.secret, "MACHPAY_ADMIN_KEY": self.secret}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Served]:
    sample, database = load_sample(), f"sqlite:///{tmp_path}/keys.db"

    async def prepared() -> str:
        async with Gateway(database=database) as made:
            account = await made.accounts.create("main", "standard")
            _, secret = await made.keyring.create(account.id, name="admin", scopes=KNOWN_SCOPES, environment="live")
            return secret

    secret = asyncio.run(prepared())
    app = create_app(sample.app, database=database, routes=sample.ROUTES, unlisted_routes="deny")
    with serving(app) as (host, port):
        yield Served(f"http://{host}:{port}", secret)


def test_a_key_lives_its_life(application: Application, gateway: Served) -> None:
    told = application.run(
        IMPORT,
        """
        const admin = new MachPay();
        const told: Record<string, unknown> = {};
        const as = (apiKey: string) => new MachPay({ apiKey, maxRetries: 0 });
        const outcome = (call: Promise<{ id: string | null }>) => call.then(({ id }) => id, ({ name }) => name);

        const creation = { name: 'a', scopes: ['skills:list'], metadata: { some_team: 'é' }, idempotencyKey: 'once' };
        const created = await admin.keys.create(creation);
        const again = await admin.keys.create(creation);
        told['again'] = [again.id === created.id, again.secret === created.secret];
        told['created'] = [created.name, created.environment, created.scopes, created.metadata, created.extra];
        told['limits'] = [...(created.rateLimit ?? [])].map(({ name, quota }) => [name, quota]);

        const rotated = await admin.keys.rotate(created.id, { graceSeconds: 600 });
        told['grace'] = [await outcome(as(created.secret).whoami()), await outcome(as(rotated.secret).whoami())];
        await admin.keys.endGrace(created.id);
        told['over'] = [await outcome(as(created.secret).whoami()), await outcome(as(rotated.secret).whoami())];

        const { etag } = await admin.keys.retrieve(created.id);
        const expiresAt = new Date('2031-01-02T03:04:05Z');
        const changed = await admin.keys.update(created.id, { expiresAt, allowedIps: ['127.0.0.1'], ifMatch: etag });
        told['changed'] = [changed.expiresAt?.getTime() === expiresAt.getTime(), changed.allowedIps];
        told['stale'] = await outcome(admin.keys.update(created.id, { name: 'b', ifMatch: etag }));
        told['usage'] = (await admin.keys.usage(created.id, { bucket: 'day' })).keyId;

        const other = await admin.keys.create({ name: 'b', scopes: [] });
        const first = await admin.keys.list({ limit: 2 });
        const all: string[] = [];
        for await (const key of admin.keys.list({ limit: 2 })) all.push(key.name);
        told['listed'] = [first.data.map((key) => key.id === other.id), first.hasMore, all];

        told['revoked'] = (await admin.keys.revoke(created.id)).status;
        told['after'] = await outcome(as(rotated.secret).whoami());
        const me = await admin.whoami();
        told['itself'] = await outcome(admin.keys.revoke(me.id ?? ''));
        told['nobody'] = await outcome(admin.keys.retrieve('key_of_nobody'));
        told['wrong'] = await admin.keys.create({ name: '', scopes: ['a'] }).catch(
          ({ name, errors }) => [name, errors.map(({ place }: { place: string }) => place)],
        );
        told['id'] = created.id;
        console.log(JSON.stringify(told));
        """,
        **gateway.environment,
    )
    key_id = told.pop("id")
    assert told == {
        "again": [True, True],
        "created": ["a", "live", ["skills:list"], {"some_team": "é"}, {}],
        "limits": [["minute", 1000], ["concurrency", 50]],
        "grace": [key_id, key_id],
        "over": ["AuthenticationError", key_id],
        "changed": [True, ["127.0.0.1"]],
        "stale": "PreconditionFailedError",
        "usage": key_id,
        "listed": [[True, False], True, ["b", "a", "admin"]],
        "revoked": "revoked",
        "after": "AuthenticationError",
        "itself": "ConflictError",
        "nobody": "NotFoundError",
        "wrong": ["UnprocessableEntityError", ["name", "scopes.0"]],
    }


def test_skills_and_account_are_reached_and_a_missing_scope_is_named(application: Application, gateway: Served) -> None:
    told = application.run(
        IMPORT,
        """
        const admin = new MachPay();
        const ids: string[] = [];
        for await (const skill of admin.skills.list()) ids.push(skill.id);
        const { output, skillId } = await admin.skills.execute({ skillId: 'sentiment', input: {} });
        const account = await admin.account.retrieve();
        const { secret: apiKey } = await admin.keys.create({ name: 'reader', scopes: ['skills:list'] });
        const reader = new MachPay({ apiKey });
        const refused = await reader.account.retrieve().catch(({ name, requiredScopes }) => [name, requiredScopes]);
        console.log(JSON.stringify({ ids, output, skillId, currency: account.extra['currency'], refused }));
        """,
        **gateway.environment,
    )
    assert told == {
        "ids": ["text-summarizer", "sentiment"],
        "output": "Done.",
        "skillId": "sentiment",
        "currency": "USD",
        "refused": ["PermissionDeniedError", ["account:read"]],
    }


def test_a_session_may_do_what_it_was_made_for_until_its_key_ends(application: Application, gateway: Served) -> None:
    told = application.run(
        IMPORT,
        """
        const admin = new MachPay();
        const key = await admin.keys.create({ name: 'page', scopes: ['skills:list', 'skills:execute'] });
        const maker = new MachPay({ apiKey: key.secret });
        const session = await maker.sessions.create({ scopes: ['skills:list'], ttlSeconds: 60 });
        const page = new MachPay({ accessToken: session.token });
        const outcome = (call: PromiseLike<unknown>) => call.then(() => 'done', ({ name }) => name);

        const { scopes, expiresIn, expiresAt, extra } = session;
        const lasts = expiresAt === null ? 0 : (expiresAt.getTime() - session.response.receivedAt) / 1000;
        const execution = { skillId: 'sentiment', input: {} };
        const before = [await outcome(page.skills.list()), await outcome(page.skills.execute(execution))];
        const another = await outcome(page.sessions.create());
        await admin.keys.revoke(key.id);
        const after = await outcome(page.skills.list());
        console.log(JSON.stringify({ scopes, expiresIn, lasts, extra, before, another, after }));
        """,
        **gateway.environment,
    )
    assert 50 < told.pop("lasts") <= 61
    assert told == {
        "scopes": ["skills:list"],
        "expiresIn": 60,
        "extra": {},
        "before": ["done", "PermissionDeniedError"],
        "another": "PermissionDeniedError",
        "after": "AuthenticationError",
    }


# The guide

STEP_1, STEP_2, STEP_3, REFRESH = "const authUrl", "app.get('/callback'", "accessToken: req.session", "const newTokens"
FROM_ENVIRONMENT, EXPLICIT = "const client = new MachPay();", "apiKey: 'sk_live_abc123...'"
# What an application has around what is written, typed as Express types it.
AROUND = """
interface Query { [key: string]: undefined | string | Query | (string | Query)[] }
interface Session { accessToken?: string; refreshToken?: string; pending: { state: string; codeVerifier: string } }
interface Request { query: Query; session: Session }
interface Reply { redirect(url: string): void }
declare const app: { get(path: string, handler: (req: Request, res: Reply) => Promise<void>): void };
declare const req: Request, res: Reply;
declare const machpay: MachPay;
declare const storedRefreshToken: string;
declare const CLIENT_ID: string, CLIENT_SECRET: string, REDIRECT_URI: string;
declare function store(accessToken: string, refreshToken: string | null): Promise<void>;
"""


def snippet(opening: str) -> str:
    """Return the guide's block of TypeScript that has *opening* in it."""
    (found,) = [block for block in guide_blocks() if opening in block]
    return found


def guide_blocks() -> list[str]:
    if not GUIDE.is_file():
        pytest.skip("the guide is not beside this checkout (../shared/guide/authentication.md)")
    return blocks_in(GUIDE)


def blocks_in(document: Path) -> list[str]:
    return [
        str(block) for block in re.findall(r"^```typescript\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    ]


def test_every_block_of_typescript_in_the_guide_is_compiled_here() -> None:
    openings = (FROM_ENVIRONMENT, EXPLICIT, STEP_1, STEP_2, STEP_3, REFRESH)
    assert {snippet(opening) for opening in openings} == set(guide_blocks())


def test_a_client_picks_its_key_up_from_the_environment(application: Application, gateway: Served) -> None:
    told = application.run(
        snippet(FROM_ENVIRONMENT),
        "const { output } = await client.skills.execute({ skillId: 'text-summarizer', input: {} });",
        "console.log(JSON.stringify([(await client.whoami()).name, output]));",
        **gateway.environment,
    )
    assert told == ["admin", "Done."]


def test_a_client_takes_a_key_as_an_argument(application: Application, gateway: Served) -> None:
    told = application.run(
        IMPORT,
        snippet(EXPLICIT),
        "console.log(JSON.stringify(await client.whoami().catch((error) => [error.name, error.code])));",
        **gateway.environment,
    )
    assert told == ["AuthenticationError", "invalid_credentials"]  # the guide's key is a made-up one


def test_the_redirect_asks_for_a_code_and_the_client_asks_for_the_same_and_more(application: Application) -> None:
    written, made = application.run(
        IMPORT,
        "const CLIENT_ID = 'app-1', REDIRECT_URI = 'https://app.example/callback?a=b';",
        snippet(STEP_1),
        "const params = { clientId: CLIENT_ID, redirectUri: REDIRECT_URI, scope: 'skills:execute account:read' };",
        "const { url } = await new MachPay().oauth.authorizationUrl(params);",
        "console.log(JSON.stringify([authUrl, url]));",
    )
    assert written.partition("?")[0] == made.partition("?")[0] == "https://auth.machpay.xyz/oauth/authorize"
    asked, more = parse_qs(urlsplit(written).query), parse_qs(urlsplit(made).query)
    assert asked == {name: more[name] for name in asked}
    assert set(more) - set(asked) == {"state", "code_challenge", "code_challenge_method"}


@pytest.mark.parametrize("opening", [STEP_2, REFRESH])
def test_the_steps_of_oauth_compile_as_they_are_written(application: Application, opening: str) -> None:
    application.compiled(IMPORT, AROUND, snippet(opening))


def test_an_access_token_is_used_with_something_in_the_place_of_the_dots(
    application: Application, gateway: Served
) -> None:
    written = snippet(STEP_3)
    assert "execute({...})" in written  # no TypeScript until there is something between the braces
    told = application.run(
        IMPORT,
        "const req = { session: { accessToken: (await new MachPay().sessions.create()).token } };",
        written.replace("{...}", "{ skillId: 'text-summarizer', input: {} }"),
        "console.log(JSON.stringify([response.output, (await client.whoami()).name]));",
        **gateway.environment,
    )
    assert told == ["Done.", "admin"]


def test_what_the_readme_shows_compiles(application: Application) -> None:
    blocks = blocks_in(SOURCES / "README.md")
    assert len(blocks) > 5
    for block in blocks:
        # Each block is a program of its own, in which imports stand first.
        imports = "".join(re.findall(r"^import .*\n", block, re.MULTILINE))
        given = [] if "const client =" in block else ["declare const client: MachPay;"]
        import_it = "" if re.search(r"\bMachPay\b.*from", imports) else IMPORT
        application.compiled(import_it, imports, AROUND, *given, block.replace(imports, ""))


# STEP_2 and REFRESH are run here, against the gateway's own authorization server, once it is served.
