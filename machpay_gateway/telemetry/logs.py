"""What the process itself says on stderr: lines for people or JSON for programs, and no secret whole in either.

What is written is masked, not what is logged: so an exception's text, its causes and another library's arguments are,
too. It is of the gateway's own processes; an application that is guarded by the middleware logs as it likes.
"""

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson

from machpay_gateway.core.text import mask_secrets

if TYPE_CHECKING:
    from structlog.typing import EventDict

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_DEEPEST = 8  # levels of what is logged as a value; below them it is told as text


def configure_logging(form: str, *, level: int = logging.INFO, worker: int | None = None) -> None:
    """Have all that is logged from *level* on written to stderr as *form*, `text` or `json`, and nowhere else.

    In JSON, *worker* is the id of the process if it is one. Warnings and exceptions that nobody caught are logged, too.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(_json_formatter(worker) if form == "json" else _TextFormatter(_TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught


class _Handler(logging.StreamHandler[Any]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Say where a line could not be made: what the standard library says then repeats every argument."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):  # stderr is gone, and so is whoever could be told
            return
        said = f"A line could not be logged ({type(error).__name__}): {record.pathname}:{record.lineno}"
        told = logging.LogRecord(record.name, logging.ERROR, record.pathname, record.lineno, said, (), None)
        self.stream.write(self.format(told) + self.terminator)
        self.flush()


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record*, with its traceback below it."""
        return mask_secrets(super().format(record))


def _json_formatter(worker: int | None) -> logging.Formatter:
    # A tenth of a second, which those who read text need not wait.
    from structlog.processors import format_exc_info  # noqa: PLC0415
    from structlog.stdlib import ExtraAdder, ProcessorFormatter  # noqa: PLC0415

    def members(_logger: object, level: str, event: "EventDict") -> "EventDict":
        """Put what every line has in front; what came beside the message cannot take the place of any of it."""
        record: logging.LogRecord = event.pop("_record")
        del event["_from_structlog"]
        ours = {
            "time": _moment(record.created),
            "level": level,
            "logger": record.name,
            "message": event.pop("event"),
            **({} if worker is None else {"worker": worker}),
        }
        return {**ours, **{name: value for name, value in event.items() if name not in ours}}

    return ProcessorFormatter(
        foreign_pre_chain=[ExtraAdder()], processors=[format_exc_info, members, _mask_members, _as_json]
    )


def _mask_members(_logger: object, _level: str, event: "EventDict") -> "EventDict":
    return {mask_secrets(name): _masked_value(value) for name, value in event.items()}


def _masked_value(value: object, depth: int = 0) -> object:
    """Return *value* as JSON has it, with nothing in it that is not masked."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < _DEEPEST:
        match value:
            case Mapping():
                return {mask_secrets(str(name)): _masked_value(item, depth + 1) for name, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [_masked_value(item, depth + 1) for item in value]
    return mask_secrets(str(value))


def _as_json(_logger: object, _level: str, event: "EventDict") -> str:
    try:
        return orjson.dumps(event).decode()
    except TypeError:  # a lone surrogate, an integer of more than 64 bits: rare, and nothing to lose a line for
        return orjson.dumps({name: _encodable(value) for name, value in event.items()}).decode()


def _encodable(value: object) -> str:
    return str(value).encode(errors="backslashreplace").decode()


def _moment(seconds: float) -> str:
    """Return *seconds* since the epoch as RFC 3339 in UTC, to the millisecond as in the access log."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, Exception):  # an interrupt is no mistake
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("machpay_gateway").critical("Nobody caught this.", exc_info=(kind, error, trace))
