"""The log: structured events on standard error. A log line that cannot be written is lost, never an error."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import structlog

from gristmill.printable import printable

#: Of an exception's own text, which may repeat what a client sent.
_MAX_MESSAGE = 300
_MAX_CHAIN = 4
_MAX_FRAMES = 12
_INNERMOST = 3


class _SafeStream:
    """Standard error that swallows its own failures: a closed terminal or a full disk must not stop a batch."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return


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
    try:
        return printable(" ".join(f"{key}={value!r}" for key, value in event.items()))
    except Exception:
        shown = printable(str(event.get("event"))[:200])
        return f"an event that cannot be shown ({type(failure).__name__}): {shown}"


def _with_error_in_brief(_logger: Any, _name: str, event: Any) -> Any:
    """An exception as ``error`` (what) and ``at`` (where): one line, without source text and without the values of
    variables, in which there may be prompts and passwords."""
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        event["error"] = " <- ".join(_in_brief(each) for each in _chain(error))
        event["at"] = _frames(error)
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


def _in_brief(error: BaseException) -> str:
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


def configure(level: str = "info", as_json: bool = False) -> None:
    """Log to standard error from ``level`` up: for a person, or one JSON object a line. Libraries' warnings, too. For
    commands: it configures structlog and logging for the whole process."""
    structlog.configure(
        processors=_processors(as_json),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=_SafeStream(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_FromLibraries()], force=True)


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


def _processors(as_json: bool) -> list[Any]:
    renderer: Any
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    to_text = [_with_error_in_brief, renderer] if as_json else [_with_error_in_brief, _printable_values, renderer]
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=False),
        _Rendering(to_text),
    ]
