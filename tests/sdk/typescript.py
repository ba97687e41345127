"""The TypeScript client, built once for all processes that test at the same time, and applications that have it.

It is built in a copy of its sources; the checkout stays as it is.
"""

import asyncio
import json
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from machpay_gateway import Gateway
from machpay_gateway.cli.demo import load_sample
from machpay_gateway.core.scopes import KNOWN_SCOPES
from machpay_gateway.server import create_app
from tests.node import NODE, NPM, done, hindrance, shared_directory
from tests.prepared import new_sqlite
from tests.servers import serving

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "clients" / "typescript"
COMPILER_OPTIONS = {
    "target": "ES2022",
    "lib": ["ES2022", "DOM"],
    "types": [],
    "module": "NodeNext",
    "strict": True,
    "exactOptionalPropertyTypes": True,
    "skipDefaultLibCheck": True,  # they are the compiler's own, and take most of its time
}
IMPORT = "import { MachPay } from '@machpay/sdk';"
# What an application has around what is written, typed as Express types it.
TYPES = """
interface Query { [key: string]: undefined | string | Query | (string | Query)[] }
interface Session { accessToken?: string; refreshToken?: string; pending: { state: string; codeVerifier: string } }
interface Request { query: Query; session: Session }
interface Reply { redirect(url: string): void }
type Handler = (req: Request, res: Reply) => Promise<void>;
"""
AROUND = (
    TYPES
    + """
declare const app: { get(path: string, handler: Handler): void };
declare const req: Request, res: Reply;
declare const machpay: MachPay;
declare const storedRefreshToken: string;
declare const CLIENT_ID: string, CLIENT_SECRET: string, REDIRECT_URI: string;
declare function store(accessToken: string, refreshToken: string | null): Promise<void>;
declare function load(): Promise<{ accessToken: string; refreshToken: string } | null>;
"""
)
HINDRANCE = hindrance("the TypeScript client is tested")
MARKS = [
    pytest.mark.skipif(bool(HINDRANCE), reason=HINDRANCE),
    pytest.mark.xdist_group("typescript"),
    pytest.mark.timeout(300),  # packages are fetched and compiled before the first test
]


@dataclass(frozen=True)
class Built:
    """The compiled sources, and the package as published. Tests change neither."""

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
            done([NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], root)
            done([NPM, "run", "build"], root)
            packed = json.loads(done([NPM, "pack", "--json", "--ignore-scripts"], root))
            (root / one(packed)["filename"]).rename(archive)
    return Built(root, archive)


@dataclass(frozen=True)
class Application:
    """A project with the published package installed."""

    root: Path
    compiler: Path

    def compiled(self, *parts: str) -> Path:
        """Return the compiled program of *parts*, joined in one file."""
        (program,) = self.all_compiled(["\n".join(parts)])
        return program

    def all_compiled(self, programs: Sequence[str], kind: str = "") -> Sequence[Path]:
        """Return the compiled *programs*, each a file of its own. One run of the compiler is faster than several.

        *kind* is `c` for CommonJS.
        """
        names = [f"program{number}" for number in range(len(programs))]
        for name, program in zip(names, programs, strict=True):
            (self.root / f"{name}.{kind}ts").write_text(program)
        options = {"compilerOptions": COMPILER_OPTIONS, "files": [f"{name}.{kind}ts" for name in names]}
        (self.root / "tsconfig.json").write_text(json.dumps(options))
        done([NODE, str(self.compiler), "--project", "."], self.root)
        return [self.root / f"{name}.{kind}js" for name in names]

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
    return Application(tmp_path, built.compiler)


def one(packed: Any) -> Any:  # noqa: ANN401 - npm's JSON
    """Return the only package in the output of npm: an array, or an object by name, depending on its version."""
    (block,) = packed.values() if isinstance(packed, Mapping) else packed
    return block


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
    sample, database = load_sample(), new_sqlite(tmp_path / "keys.db")

    async def prepared() -> str:
        async with Gateway(database=database) as made:
            account = await made.accounts.create("main", "standard")
            _, secret = await made.keys.create(account.id, name="admin", scopes=KNOWN_SCOPES, environment="live")
            return secret

    secret = asyncio.run(prepared())
    app = create_app(sample.app, database=database, routes=sample.ROUTES, unlisted_routes="deny")
    with serving(app) as (host, port):
        yield Served(f"http://{host}:{port}", secret)


def blocks_in(document: Path) -> list[str]:
    """Return the blocks of TypeScript in *document*."""
    return [
        str(block) for block in re.findall(r"^```typescript\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    ]
