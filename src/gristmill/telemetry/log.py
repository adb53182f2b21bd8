"""The log: structured events on standard error. A log line that cannot be written is lost, never an error.

No line holds what clients sent or an engine answered, unless that is asked for: neither the messages of exceptions,
which may repeat it, nor what an event has as ``content``.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import structlog

from gristmill.printable import printable
from gristmill.telemetry.line_writer import LineWriter
from gristmill.telemetry.metrics import LOST_LOG_LINES

#: Of an exception's own text, which may repeat what a client sent.
_MAX_MESSAGE = 300
_MAX_CHAIN = 4
_MAX_FRAMES = 12
_INNERMOST = 3
#: Whose messages name files, tables and addresses, and never what somebody sent: by the modules of their classes. Of
#: the database's, ``hide_parameters`` takes care.
_SAYS_NO_CONTENT = ("gristmill.storage", "gristmill.user_error", "sqlalchemy", "sqlite3", "obstore")


class _SafeStream:
    """Standard error that swallows its own failures, for programs that only use Gristmill."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(Exception):
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(Exception):
            if self._stream is not None:
                self._stream.flush()


class _Rendering:
    """An event made into text. Rendering may fail (of values that cannot be shown, or without memory); then the event
    is logged in a plain form: whoever logs an error has work to do after it."""

    def __init__(self, steps: Sequence[Any]) -> None:
        self._steps = steps

    def __call__(self, logger: Any, name: str, event: Any) -> Any:
        rendered = dict(event)
        try:
            for step in self._steps:
                rendered = step(logger, name, rendered)
        except Exception as failure:
            return _plain(event, failure)
        return rendered


def _plain(event: dict[str, Any], failure: Exception) -> str:
    """Without content, whatever was asked for: it may be what cannot be shown."""
    shown = {key: value for key, value in event.items() if key not in ("content", "exc_info")}
    if event.get("exc_info") is not None:
        shown["error"] = type(event["exc_info"]).__name__
    try:
        return printable(" ".join(f"{key}={value!r}" for key, value in shown.items()))
    except Exception:
        named = printable(str(event.get("event"))[:200])
        return f"an event that cannot be shown ({type(failure).__name__}): {named}"


def _with_error_in_brief(_logger: Any, _name: str, event: Any, content: bool = False) -> Any:
    """An exception as ``error`` (what) and ``at`` (where): one line, without source text and without the values of
    variables, in which there may be prompts and passwords. Its message only where that is known to hold none."""
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        event["error"] = " <- ".join(_in_brief(each, content) for each in _chain(error))
        event["at"] = _frames(error)
    return event


def _with_content_in_full(_logger: Any, _name: str, event: Any) -> Any:
    return _with_error_in_brief(_logger, _name, event, content=True)


def _without_content(_logger: Any, _name: str, event: Any) -> Any:
    event.pop("content", None)
    return event


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, what it wraps, and what led to it, some of each."""
    following: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if following is None:
            return
        yield following
        if isinstance(following, BaseExceptionGroup):
            yield from following.exceptions[1:_MAX_CHAIN]
            following = following.exceptions[0]
        else:
            following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)


def _in_brief(error: BaseException, content: bool) -> str:
    if not (content or isinstance(error, OSError) or type(error).__module__.startswith(_SAYS_NO_CONTENT)):
        return type(error).__name__
    message = str(error)
    shown = message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__


def _frames(error: BaseException) -> str:
    """Innermost first, of the exception itself or of the first one that a group holds: the innermost few, and ours."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    found = [
        f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    found.reverse()
    shown = [frame for depth, frame in enumerate(found) if depth < _INNERMOST or frame.startswith("gristmill.")]
    return " < ".join(shown[:_MAX_FRAMES])


def _printable_values(_logger: Any, _name: str, event: Any) -> Any:
    """Ids, paths and messages from outside must not command a terminal, or look like a line of their own."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


class _FromLibraries(logging.Handler):
    """What libraries report by Python's own logging, in our form."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            report = getattr(get_logger(record.name), record.levelname.lower(), None)
            # Further lines describe objects, with all they hold.
            message = record.getMessage().partition("\n")[0][:_MAX_MESSAGE]
            if report is not None:
                report(message, exc_info=record.exc_info[1] if record.exc_info else None)
        except Exception:
            return


def configure(level: str = "info", as_json: bool = False, content: bool = False) -> None:
    """Log to standard error from ``level`` up: for a person, or one JSON object a line. Libraries' warnings, too. With
    ``content``, lines may hold what clients sent and an engine answered. For commands: it configures structlog and
    logging for the whole process."""
    writer = _writer()
    if isinstance(writer, LineWriter) and as_json:
        writer.tell_lost = _lost_as_json
    structlog.configure(
        processors=_processors(as_json, content),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=writer),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_FromLibraries()], force=True)
    logging.captureWarnings(True)


def _lost_as_json(lines: int) -> str:
    return f'{{"level": "warning", "event": "lines of the log were lost, as nobody took them", "lines": {lines}}}'


def announce(text: str) -> None:
    """A line of its own among the log's, as it is, for a person who has started the process."""
    _writer().write(f"{text}\n")


def drain() -> None:
    """Wait, not for long, until what was logged has been written."""
    for writer in _writers[-1:]:
        writer.drain()


#: The one in use, of what has been standard error: that changes in tests only.
_writers: list[LineWriter] = []


def _writer() -> LineWriter | _SafeStream:
    if sys.stderr is None:
        return _SafeStream(None)
    if not _writers or _writers[-1].stream is not sys.stderr:
        try:
            _writers[:] = [LineWriter(sys.stderr, LOST_LOG_LINES)]
        except RuntimeError:  # no thread to be had
            return _SafeStream(sys.stderr)
    return _writers[-1]


def get_logger(name: str) -> Any:
    return _Logger(name.removeprefix("gristmill."))


class _Logger:
    """Logs as the process has configured structlog. Where it has not, as in a program that only uses Gristmill,
    warnings go to standard error, and structlog stays as it is."""

    def __init__(self, component: str) -> None:
        self._component = component

    def __getattr__(self, level: str) -> Any:
        configured = structlog.is_configured()
        logger = structlog.get_logger() if configured else _unconfigured_logger()
        return getattr(logger.bind(component=self._component), level)


def _unconfigured_logger() -> Any:
    return structlog.wrap_logger(
        structlog.WriteLogger(_SafeStream(sys.stderr)),  # type: ignore[arg-type]
        processors=_processors(as_json=False),
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
    )


def _processors(as_json: bool, content: bool = False) -> list[Any]:
    renderer: Any
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr is not None and sys.stderr.isatty())
    to_text = [_with_content_in_full] if content else [_without_content, _with_error_in_brief]
    to_text += [renderer] if as_json else [_printable_values, renderer]
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=False),
        _Rendering(to_text),
    ]
