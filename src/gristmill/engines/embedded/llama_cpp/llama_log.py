"""What llama.cpp logs: all of it to standard error, which the server logs at debug, and errors kept for sentences."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections import deque

#: ``ggml_log_level``. A continuation has the level of what it continues.
_INFO, _ERROR, _CONTINUED = 2, 4, 5
_KEPT = 40
#: "llama_model_load: error loading model: " and the like, of which people learn nothing.
_PREFIXES = re.compile(r"^((\w+|error loading model[\w ]*): )+")

Callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class LlamaLog:
    """``callback`` is called on any of the library's threads. The object must live as long as the library logs, which
    is as long as the process."""

    def __init__(self, echo: bool) -> None:
        """``echo``: pass on to standard error what is worth it."""
        self._echo = echo
        self._level = _INFO
        self._errors: deque[str] = deque(maxlen=_KEPT)
        self.callback = Callback(self._take)

    def forget(self) -> None:
        """What has gone wrong so far is not about what comes now."""
        self._errors.clear()

    @property
    def errors(self) -> tuple[str, ...]:
        return tuple(self._errors)

    def reason(self) -> str:
        """The first error since ``forget``, as part of a sentence; empty where there was none."""
        return first_reason(self.errors)

    def _take(self, level: int, text: bytes | None, _: object) -> None:
        if level != _CONTINUED:
            self._level = level
        if text is None or self._level < _INFO:
            return
        if self._level == _ERROR and text.strip():
            self._errors.append(text.decode("utf-8", "replace").strip())
        if self._echo:
            # Not through Python's stream: its lock may be held by the thread that this interrupts.
            with contextlib.suppress(OSError):
                os.write(2, text)


def first_reason(errors: tuple[str, ...]) -> str:
    """What went wrong first is why the rest did. Pure."""
    stripped = [_PREFIXES.sub("", error).rstrip(".") for error in errors]
    return next((error for error in stripped if error), "")
