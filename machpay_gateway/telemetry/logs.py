"""Logging of the gateway's own processes to stderr: text for people or JSON for programs, with secrets masked.

Masking applies to the formatted line, so that it covers the text of exceptions, their causes and other libraries'
arguments. An application with the middleware configures its own logging.

Lines of libraries that repeat themselves are written once a minute, with a count: callers cause some of them.
"""

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from machpay_gateway.core.text import mask_secrets
from machpay_gateway.log_throttle import LogThrottle, times

if TYPE_CHECKING:
    from structlog.typing import EventDict

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_OURS = "machpay_gateway"
_MAX_DEPTH = 8  # levels of a nested value; deeper ones are logged as text


def configure_logging(form: str, *, level: str = "info", worker: int | None = None) -> None:
    """Log everything from *level* up to stderr in the *form* `text` or `json`, and nowhere else.

    At level `debug`, libraries still log from `info` up: what they say below that may be any data, and is too much.
    In JSON, *worker* is the id of a worker process. Warnings and uncaught exceptions are logged, too.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger(_OURS).setLevel(number if number < logging.INFO else logging.NOTSET)
    handler = _Handler(sys.stderr)
    handler.setFormatter(_json_formatter(worker) if form == "json" else _TextFormatter(_TEXT))
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught


class _Handler(logging.StreamHandler[Any]):
    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._throttle = LogThrottle(logging.getLogger(_OURS))

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*; a library's line that was written within a minute is only counted."""
        if record.name == _OURS or record.name.startswith(f"{_OURS}."):  # these limit what repeats themselves
            super().emit(record)
        else:
            kind = (record.name, record.levelno, record.pathname, record.lineno)
            self._throttle.add(kind, partial(self._emit_counted, record))

    def _emit_counted(self, record: logging.LogRecord, count: int) -> None:
        record.msg = f"{record.msg}{times(count)}"
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Log where a record could not be formatted; the standard library would print every argument."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):  # stderr is closed
            return
        message = f"A line could not be logged ({type(error).__name__}): {record.pathname}:{record.lineno}"
        replacement = logging.LogRecord(record.name, logging.ERROR, record.pathname, record.lineno, message, (), None)
        self.stream.write(self.format(replacement) + self.terminator)
        self.flush()


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record* and its traceback, masked."""
        return mask_secrets(super().format(record))


def _json_formatter(worker: int | None) -> logging.Formatter:
    # These imports take a tenth of a second, which the text form does not need.
    from structlog.processors import format_exc_info  # noqa: PLC0415
    from structlog.stdlib import ExtraAdder, ProcessorFormatter  # noqa: PLC0415

    def members(_logger: object, level: str, event: "EventDict") -> "EventDict":
        """Put the members of every line first; extra members cannot replace them."""
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
    """Return *value* as a JSON value, masked throughout."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < _MAX_DEPTH:
        match value:
            case Mapping():
                return {mask_secrets(str(name)): _masked_value(item, depth + 1) for name, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [_masked_value(item, depth + 1) for item in value]
    return mask_secrets(str(value))


def _as_json(_logger: object, _level: str, event: "EventDict") -> str:
    try:
        return orjson.dumps(event).decode()
    except TypeError:  # a lone surrogate, an integer of more than 64 bits: rare, but the line must not be lost
        return orjson.dumps({name: _encodable(value) for name, value in event.items()}).decode()


def _encodable(value: object) -> str:
    return str(value).encode(errors="backslashreplace").decode()


def _moment(seconds: float) -> str:
    """Return *seconds* since the epoch as RFC 3339 in UTC, to the millisecond as in the access log."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, Exception):  # KeyboardInterrupt is no error
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("machpay_gateway").critical("Uncaught exception.", exc_info=(kind, error, trace))
