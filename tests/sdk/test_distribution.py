import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import machpay
import pytest

from machpay_gateway.admin.operations import OPERATIONS

ROOT = Path(__file__).parents[2] / "clients" / "python"


def test_the_synchronous_files_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    there = {path.name: path.read_text() for path in (ROOT / "src/machpay/_sync").glob("*.py")}
    assert there == generate.generated(), "run clients/python/generate.py"


def test_nothing_asynchronous_is_left_in_the_synchronous_files() -> None:
    for path in (ROOT / "src/machpay/_sync").glob("*.py"):
        code = path.read_text().split('"""', 2)[2]
        assert not re.search(r"async|await|Async", code), path.name


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == machpay.__version__
    assert project["dependencies"] == ["httpx2>=2.16,<3"]


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(machpay.__file__).parent / "py.typed").exists()


def test_the_public_names_are_all_there() -> None:
    assert all(hasattr(machpay, name) for name in machpay.__all__)


def test_importing_takes_little_beside_httpx2() -> None:
    code = "import time, httpx2; t = time.process_time(); import machpay; print(time.process_time() - t)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 0.15


@pytest.mark.parametrize("sources", [ROOT / "src/machpay/_async", ROOT.parent / "typescript" / "src"], ids=["py", "ts"])
def test_each_operation_of_the_key_api_has_a_method(sources: Path) -> None:
    text = "\n".join(path.read_text() for path in sources.rglob("*.*") if path.suffix in {".py", ".ts"})
    parts = {part for operation in OPERATIONS for part in operation.path.split("{id}")}
    assert [part for part in sorted(parts) if part.rstrip("/") not in text] == []
