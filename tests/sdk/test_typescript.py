"""The TypeScript client: its own tests, its package, and its README, with the gateway."""

import json
import re
import shutil
from pathlib import Path

from tests.node import NODE, NPM, done
from tests.sdk.typescript import (
    AROUND,
    IMPORT,
    MARKS,
    ROOT,
    SOURCES,
    Application,
    Built,
    Served,
    application,
    blocks_in,
    built,
    gateway,
    one,
)

__all__ = ["application", "built", "gateway"]

pytestmark = MARKS


def test_the_clients_own_tests_pass(built: Built) -> None:
    results = done([NPM, "test", "--ignore-scripts"], built.root)  # without those before it: it is built already
    assert int(re.findall(r"^(?:#|ℹ) pass (\d+)$", results, re.MULTILINE)[0]) > 200  # noqa: RUF001 - node's own sign


def test_the_types_hold_what_they_promise_to_an_application_of_nodejs(built: Built) -> None:
    done([NODE, str(built.compiler), "--project", "tests"], built.root)


def test_the_package_has_what_runs_and_its_types_and_nothing_else(built: Built) -> None:
    packed = json.loads(done([NPM, "pack", "--dry-run", "--json", "--ignore-scripts"], built.root))
    modules = {path.relative_to(SOURCES / "src").with_suffix("") for path in (SOURCES / "src").rglob("*.ts")}
    sources = {f"src/{module.as_posix()}.ts" for module in modules}
    compiled = {
        f"{folder}/{module.as_posix()}{suffix}"
        for folder in ("dist", "dist/cjs")
        for module in modules
        for suffix in (".js", ".js.map", ".d.ts", ".d.ts.map")
    }
    others = {"LICENSE", "README.md", "package.json", "dist/cjs/package.json"}
    assert {file["path"] for file in one(packed)["files"]} == {*others, *sources, *compiled}


def test_an_application_of_commonjs_compiles_and_requires_the_client(application: Application, gateway: Served) -> None:
    program = IMPORT + "new MachPay().whoami().then(({ name }) => console.log(JSON.stringify(name)));"
    (compiled,) = application.all_compiled([program], kind="c")
    assert "require(" in compiled.read_text()
    assert json.loads(done([NODE, str(compiled)], application.root, **gateway.environment)) == "admin"


def test_a_checkout_is_built_when_it_is_installed(built: Built, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(SOURCES, checkout, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (checkout / "node_modules").symlink_to(built.root / "node_modules")  # which it would fetch
    (tmp_path / "package.json").write_text('{"name": "app", "version": "1.0.0"}')
    done([NPM, "install", "--offline", "--no-audit", "--no-fund", str(checkout)], tmp_path)
    program = (
        'import("@machpay/sdk").then(({ VERSION }) => console.log(VERSION, typeof require("@machpay/sdk").MachPay))'
    )
    assert done([NODE, "-e", program], tmp_path) == "0.1.0 function\n"


def test_the_readme_begins_with_the_installation() -> None:
    assert re.match(r"# @machpay/sdk\n\n```console\n\$ npm install ", (SOURCES / "README.md").read_text())


def test_other_endpoints_and_streams_are_reached(application: Application, gateway: Served) -> None:
    results = application.run(
        IMPORT,
        """
        const client = new MachPay();
        const skills = await client.get('/v1/skills', { headers: { 'Accept-Language': 'en' }, timeout: 5_000 });
        const created = await client.post('/v1/webhooks', { json: { url: 'https://a.example' } });
        const changed = await client.patch('/v1/account', { json: { balance: 7 } });
        const refused = await client.delete('/v1/account').catch(({ name }) => name);
        const events: string[] = [];
        const stream = await client.stream('GET', '/v1/skills/stream');
        for await (const { event } of stream.iterEvents()) events.push(event);
        const { data } = skills.json() as { data: unknown[] };
        console.log(JSON.stringify({
          skills: [skills.status, data.length, skills.rateLimit?.get('minute')?.quota],
          created: [created.status, (created.json() as { url: string }).url],
          changed: (changed.json() as { balance: number }).balance,
          stream: [stream.status, stream.requestId !== null, events],
          refused,
        }));
        """,
        **gateway.environment,
    )
    assert results == {
        "skills": [200, 2, 1000],
        "created": [201, "https://a.example"],
        "changed": 7,
        "stream": [200, True, ["skill", "skill", "end"]],
        "refused": "NotFoundError",
    }


def test_the_licence_is_the_repositorys() -> None:
    assert (SOURCES / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_lifecycle_of_a_key_by_the_client(application: Application, gateway: Served) -> None:
    results = application.run(
        IMPORT,
        """
        const admin = new MachPay();
        const results: Record<string, unknown> = {};
        const as = (apiKey: string) => new MachPay({ apiKey, maxRetries: 0 });
        const outcome = (call: Promise<{ id: string | null }>) => call.then(({ id }) => id, ({ name }) => name);

        const creation = { name: 'a', scopes: ['skills:list'], metadata: { some_team: 'é' }, idempotencyKey: 'once' };
        const created = await admin.keys.create(creation);
        const again = await admin.keys.create(creation);
        results['again'] = [again.id === created.id, again.secret === created.secret];
        results['created'] = [created.name, created.environment, created.scopes, created.metadata, created.extra];
        results['limits'] = [...(created.rateLimit ?? [])].map(({ name, quota }) => [name, quota]);

        const rotated = await admin.keys.rotate(created.id, { graceSeconds: 600 });
        results['grace'] = [await outcome(as(created.secret).whoami()), await outcome(as(rotated.secret).whoami())];
        await admin.keys.endGrace(created.id);
        results['over'] = [await outcome(as(created.secret).whoami()), await outcome(as(rotated.secret).whoami())];

        const { etag } = await admin.keys.retrieve(created.id);
        const expiresAt = new Date('2031-01-02T03:04:05Z');
        const changed = await admin.keys.update(created.id, { expiresAt, allowedIps: ['127.0.0.1'], ifMatch: etag });
        results['changed'] = [changed.expiresAt?.getTime() === expiresAt.getTime(), changed.allowedIps];
        results['stale'] = await outcome(admin.keys.update(created.id, { name: 'b', ifMatch: etag }));
        results['usage'] = (await admin.keys.usage(created.id, { bucket: 'day' })).keyId;

        const other = await admin.keys.create({ name: 'b', scopes: [] });
        const first = await admin.keys.list({ limit: 2 });
        const all: string[] = [];
        for await (const key of admin.keys.list({ limit: 2 })) all.push(key.name);
        results['listed'] = [first.data.map((key) => key.id === other.id), first.hasMore, all];

        results['revoked'] = (await admin.keys.revoke(created.id)).status;
        results['after'] = await outcome(as(rotated.secret).whoami());
        const me = await admin.whoami();
        results['itself'] = await outcome(admin.keys.revoke(me.id ?? ''));
        results['nobody'] = await outcome(admin.keys.retrieve('key_of_nobody'));
        results['wrong'] = await admin.keys.create({ name: '', scopes: ['a'] }).catch(
          ({ name, errors }) => [name, errors.map(({ place }: { place: string }) => place)],
        );
        results['id'] = created.id;
        console.log(JSON.stringify(results));
        """,
        **gateway.environment,
    )
    key_id = results.pop("id")
    assert results == {
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
    results = application.run(
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
    assert results == {
        "ids": ["text-summarizer", "sentiment"],
        "output": "Done.",
        "skillId": "sentiment",
        "currency": "USD",
        "refused": ["PermissionDeniedError", ["account:read"]],
    }


def test_a_session_may_do_what_it_was_made_for_until_its_key_ends(application: Application, gateway: Served) -> None:
    results = application.run(
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
    assert 50 < results.pop("lasts") <= 61
    assert results == {
        "scopes": ["skills:list"],
        "expiresIn": 60,
        "extra": {},
        "before": ["done", "PermissionDeniedError"],
        "another": "PermissionDeniedError",
        "after": "AuthenticationError",
    }


def test_what_the_readme_shows_compiles(application: Application) -> None:
    blocks = blocks_in(SOURCES / "README.md")
    assert len(blocks) > 5
    programs = []
    for block in blocks:
        # Each block is a program of its own, in which imports stand first.
        imports = "".join(re.findall(r"^import .*\n", block, re.MULTILINE))
        given = [] if "const client =" in block else ["declare const client: MachPay;"]
        import_it = "" if re.search(r"\bMachPay\b.*from", imports) else IMPORT
        programs.append("\n".join([import_it, imports, AROUND, *given, block.replace(imports, "")]))
    application.all_compiled(programs)
