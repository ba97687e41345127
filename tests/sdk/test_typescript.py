"""The TypeScript client: its own tests, its package, and its README, with the gateway."""

import json
import re

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
    compiled = {f"dist/{module.as_posix()}{suffix}" for module in modules for suffix in (".js", ".d.ts")}
    assert {file["path"] for file in one(packed)["files"]} == {"LICENSE", "README.md", "package.json", *compiled}


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
