"""Generate the synchronous client from the asynchronous one: `python generate.py`, from any directory.

`src/machpay/_sync` is generated from `src/machpay/_async` by replacing names, and formatted by ruff. Do not edit it.
Lines that end with `# async only` are left out, and so are files that only asynchronous code needs.
"""

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "src" / "machpay"
ASYNC_ONLY_FILES = frozenset({"listing.py", "opening.py", "shielded.py"})
ASYNC_ONLY_LINE = re.compile(r"^.*# async only\n", re.MULTILINE)
WORDS = {
    "AsyncClient": "Client",
    "AsyncIterator": "Iterator",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "_async": "_sync",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "asynccontextmanager": "contextmanager",
    "asynchronous": "synchronous",
    "asyncio": "time",
}
ASYNC_NAME = re.compile(r"Async([A-Z]\w*)")  # AsyncKeys is Keys
ASYNC_KEYWORD = re.compile(r"\b(?:async|await) ")
WORD = re.compile(r"\w+")
INIT = '"""The synchronous client. Every file here is generated from `_async` by generate.py: edit it there."""\n'
NOTE = "\n\nGenerated from `_async` by generate.py: edit it there.\n"
FIRST_DOCSTRING = re.compile(r'\A"""(.*?)\n?"""', re.DOTALL)


def synchronous(source: str) -> str:
    """Return *source* as synchronous code."""
    text = ASYNC_KEYWORD.sub("", ASYNC_ONLY_LINE.sub("", source))
    text = WORD.sub(lambda word: WORDS.get(word[0]) or ASYNC_NAME.sub(r"\1", word[0]), text)
    return FIRST_DOCSTRING.sub(lambda match: f'"""{match[1]}{NOTE}"""', text, count=1)


def generated() -> dict[str, str]:
    """Return the text of every generated file, by its name."""
    sources = {path.name: path.read_text() for path in sorted((PACKAGE / "_async").glob("*.py"))}
    files = {name: synchronous(text) for name, text in sources.items() if name not in ASYNC_ONLY_FILES}
    return {name: formatted(text) for name, text in (files | {"__init__.py": INIT}).items()}


def formatted(source: str) -> str:
    """Return *source* formatted by ruff: shorter names join lines, and sort differently."""
    for command in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
        arguments = [
            sys.executable,
            "-m",
            "ruff",
            *command,
            "--stdin-filename",
            str(PACKAGE / "_sync" / "client.py"),
            "-",
        ]
        result = subprocess.run(arguments, input=source, text=True, capture_output=True, check=True)
        source = result.stdout
    return source


def main() -> None:
    """Write the files, and delete those whose source was deleted."""
    files = generated()
    folder = PACKAGE / "_sync"
    folder.mkdir(exist_ok=True)
    for stale in {path.name for path in folder.glob("*.py")} - files.keys():
        (folder / stale).unlink()
    for name, text in files.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
