"""The log: structured events on standard error. A log line that cannot be written is lost, never an error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TextIO

import structlog


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
    """An event made into text. Rendering may fail (a traceback reads source files, and a process may be out of file
    descriptors or memory); then the event is logged in a plain form: whoever logs an error has work to do after it."""

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
        return " ".join(f"{key}={value!r}" for key, value in event.items())
    except Exception:
        return f"an event that cannot be shown ({type(failure).__name__}): {str(event.get('event'))[:200]}"


def configure(level: str = "info", as_json: bool = False) -> None:
    """Log to standard error from ``level`` up: for a person, or one JSON object a line."""
    stream = _SafeStream(sys.stderr)
    renderer: Any
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    to_text = [structlog.processors.format_exc_info if as_json else _keep, renderer]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=False),
            _Rendering(to_text),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )


def configure_once(level: str) -> None:
    """For use from Python: whoever has configured the log has it as they want it."""
    if not structlog.is_configured():
        configure(level)


def get_logger(name: str) -> Any:
    return structlog.get_logger(component=name.removeprefix("gristmill."))


def _keep(_logger: Any, _name: str, event: Any) -> Any:
    return event
