"""Mutation tests: change one place of a file at a time, and see whether its tests fail.

`make mutants ARGS="machpay_gateway/gate.py --sample 30"` picks 30 places of the file. cosmic-ray makes the mutants; a
statement that is left out is added here. All of it runs on a copy of the checkout, so an interrupted run leaves nothing
behind. A mutant that survives is a test that is missing, or code that makes no difference.
"""

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import parso
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import use_mutation
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator, operator_names
from parso.python.tree import Keyword

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv" / "bin" / "python"
# Whose tests are not in a folder or file of the same name.
_TESTS = {
    "gate": ("tests/test_gate.py", "tests/middleware"),
    "fastapi": ("tests/test_fastapi.py",),
    "singleflight": ("tests/test_singleflight.py",),
    "keysets": ("tests/test_keysets.py", "tests/test_own_tokens.py", "tests/test_signing_keys.py", "tests/oauth"),
    "services": ("tests/services", "tests/admin", "tests/oauth"),
    "server": ("tests/serving", "tests/admin/test_routing.py"),
    "assembly": ("tests/settings", "tests/middleware", "tests/cli"),
}
_LEAST_SECONDS = 30.0  # a mutant that hangs is one that was noticed


class RemoveStatement(Operator):  # type: ignore[misc]  # cosmic-ray has no types
    """Replaces a statement of a function that does something, a call or an assignment, by `pass`."""

    def mutation_positions(self, node: parso.tree.NodeOrLeaf) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Yield where *node* begins and ends, if it is such a statement."""
        is_statement = node.parent is not None and node.parent.type == "simple_stmt"
        does_something = node.type in {"expr_stmt", "atom_expr", "power", "await"}
        if is_statement and does_something and parso.python.tree.search_ancestor(node, "funcdef") is not None:
            yield node.start_pos, node.end_pos

    def mutate(self, node: parso.tree.NodeOrLeaf, index: int) -> parso.tree.NodeOrLeaf:  # noqa: ARG002 - one position each
        """Return what stands for *node*."""
        return Keyword("pass", node.start_pos, prefix=node.get_first_leaf().prefix)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Return what cosmic-ray shows of the operator."""
        return (Example("def f(): g()", "def f(): pass"),)


@dataclass(frozen=True)
class Mutant:
    """A change of one place: the *occurrence* of what *operator* changes, at *start* (line, column) of the file."""

    operator: Operator
    name: str
    occurrence: int
    start: tuple[int, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a line for each mutant, and return 1 when one survives."""
    chosen = _parser().parse_args(arguments)
    file: Path = chosen.file
    tests: Sequence[str] = chosen.tests or tests_of(file)
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:  # noqa: S108 - as meant
        copy = Path(folder) / "copy"
        copy_checkout(copy)
        command = [str(PYTHON), "-m", "pytest", "-x", "-q", "-n", str(chosen.processes), "--dist", "loadgroup", *tests]
        started = time.monotonic()
        if (failed := run(command, copy, timeout=None)) is not None:
            print(f"The tests fail without any mutant: {failed}")
            return 2
        timeout = max(_LEAST_SECONDS, 4 * (time.monotonic() - started))
        mutants = sample(list(mutants_of(copy / file)), chosen.sample, chosen.seed)
        print(f"{file}: {len(mutants)} mutants, tests {' '.join(tests)}, seed {chosen.seed}", flush=True)
        survivors = sum(_survives(mutant, copy, file, command, timeout) for mutant in mutants)
    print(f"{len(mutants) - survivors} killed, {survivors} survived")
    return 1 if survivors else 0


def tests_of(file: Path) -> tuple[str, ...]:
    """Return which tests are those of *file*, a module of the package."""
    room = file.with_suffix("").parts[1]
    own = _TESTS.get(room, (f"tests/{room}",))
    return tuple(test for test in own if (ROOT / test).exists())


def copy_checkout(target: Path) -> None:
    """Copy what git tracks, as it is on the disk, and `../shared` beside it if it is there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - the git of this machine
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    if (shared := ROOT.parent / "shared").is_dir():
        (target.parent / "shared").symlink_to(shared.resolve())


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Yield every mutant of the file at *path* but those of annotations, which run nothing."""
    tree = get_ast_from_path(path)
    annotations = set(_annotated_lines(path.read_text()))
    operators = [(name, get_operator(name)) for name in operator_names()]
    makers = [(name, maker()) for name, maker in operators if not maker.arguments()]
    for name, operator in [*makers, ("RemoveStatement", RemoveStatement())]:
        positions = (start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node))
        for occurrence, start in enumerate(positions):
            if not any(begin <= start < end for begin, end in annotations):
                yield Mutant(operator, name.partition("/")[2] or name, occurrence, start)


def sample(mutants: Sequence[Mutant], size: int, seed: int) -> list[Mutant]:
    """Return one mutant of each of *size* places, in the order of the file."""
    chance = random.Random(seed)  # noqa: S311 - a sample that can be drawn again
    by_place: dict[tuple[int, int], list[Mutant]] = {}
    for mutant in mutants:
        by_place.setdefault(mutant.start, []).append(mutant)
    places = chance.sample(sorted(by_place), min(size, len(by_place)))
    return [chance.choice(by_place[place]) for place in sorted(places)]


def run(command: Sequence[str], copy: Path, timeout: float | None) -> str | None:
    """Run the tests in *copy*; return which one failed first, None when all passed."""
    environ = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command, cwd=copy, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        return "no test in time"
    if process.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    return failed[1] if failed else output.strip().rpartition("\n")[2]


def _survives(mutant: Mutant, copy: Path, file: Path, command: Sequence[str], timeout: float) -> bool:
    line, column = mutant.start
    with use_mutation(copy / file, mutant.operator, mutant.occurrence) as (before, after):
        if after is None or after == before:
            return False
        killed_by = run(command, copy, timeout)
    lines = zip(before.splitlines(), after.splitlines(), strict=False)
    changed = next((new.strip() for old, new in lines if old != new), "")
    verdict = "SURVIVED" if killed_by is None else f"killed by {killed_by}"
    print(f"{file}:{line}:{column + 1} {mutant.name}: {changed}\n    {verdict}", flush=True)
    return killed_by is None


def _annotated_lines(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield where each annotation of *source* begins and ends, as (line, column)."""
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            part = getattr(node, name, None)
            if isinstance(part, ast.expr):
                yield (part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make mutants", description="See whether tests notice changes of a file.")
    parser.add_argument("file", type=Path, help="a module of the package, such as machpay_gateway/gate.py")
    parser.add_argument("--tests", nargs="+", help="files or folders of tests (default: those of the module's room)")
    parser.add_argument("--sample", type=int, default=20, help="how many places of the file (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="which places: the same seed picks the same ones")
    parser.add_argument("--processes", type=int, default=2, help="processes that run the tests (default: 2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
