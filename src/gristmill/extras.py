"""The packages of the optional extras, imported only when needed."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from gristmill.user_error import UserError

_REPORTING = "openvino_telemetry"
_importing = threading.Lock()


def require(package: str, extra: str = "embedded") -> Any:
    """The module ``package``. Raises UserError naming the extra when it is not installed."""
    if sys.modules.get(package) is not None:
        return sys.modules[package]
    try:
        with _without_reporting() if package.startswith("openvino") else nullcontext():
            return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"This needs the Python package '{error.name}', which is not installed: "
            f"run pip install 'gristmill[{extra}]'."
        ) from None


@contextmanager
def _without_reporting() -> Iterator[None]:
    """OpenVINO's Python packages report their use to an analytics service, from a process they fork at import. Nobody
    asked for that; where the reporting package cannot be imported they do without it. Afterwards it can be again: the
    process may be somebody else's."""
    with _importing:
        blocked = _REPORTING not in sys.modules
        if blocked:
            sys.modules[_REPORTING] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            if blocked:
                del sys.modules[_REPORTING]
