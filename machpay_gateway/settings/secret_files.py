"""Secrets in files: a setting that holds one may name a file instead, as Docker and Kubernetes mount them.

`redis_file` and `MACHPAY_REDIS_FILE` are the files for `redis`, and so on. They are read with all other settings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.settings.lines import SettingPath
from machpay_gateway.settings.tables import Report

_SECRETS: tuple[tuple[str, ...], ...] = (("database",), ("redis",), ("secret_key",), ("oauth", "registration_token"))


def replace_secret_files(values: Mapping[str, Any], report: Report) -> tuple[Mapping[str, Any], dict[SettingPath, str]]:
    """Return *values* of one source with secrets in place of their files, and the name of each such setting.

    The name of a file stays beside the value: who logs in by it may read it again.
    """
    replaced = dict(values)
    names: dict[SettingPath, str] = {}
    for *tables, name in _SECRETS:
        table = _copy_table(replaced, tables)
        file_name = f"{name}_file"
        if table is None or (table.get(name) is None and table.get(file_name) is None):
            continue
        file = table.pop(file_name, None)
        if file is not None:
            table[name] = _read((*tables, file_name), file, report, is_alone=table.get(name) is None)
            names[(*tables, name)] = file_name
        if not tables:
            table[file_name] = file  # None overrides the file of an earlier source
    return replaced, names


def _copy_table(values: dict[str, Any], tables: list[str]) -> dict[str, Any] | None:
    """Copy the table at *tables* in *values*, so that the source stays as it is; None when there is none."""
    for name in tables:
        if not isinstance(values.get(name), Mapping):
            return None
        values[name] = dict(values[name])
        values = values[name]
    return values


def _read(path: SettingPath, file: object, report: Report, *, is_alone: bool) -> str | None:
    if not is_alone:
        report(path, "is set beside the value itself: set one of the two")
        return None
    try:
        return read_secret(Path(str(file)))
    except ConfigurationError as exc:
        report(path, str(exc))
        return None


def read_secret(file: Path) -> str:
    """Return what *file* holds, without the end of its line. Raises ConfigurationError."""
    try:
        text = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no text in UTF-8"
        raise ConfigurationError(f"{file} cannot be read: {reason}") from exc
    if not text:
        raise ConfigurationError(f"{file} is empty")
    return text
