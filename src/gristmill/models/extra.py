"""The packages of the optional extras, imported only when needed."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from gristmill.user_error import UserError


def require(package: str, extra: str = "embedded") -> Any:
    """The module ``package``. Raises UserError naming the extra when it is not installed."""
    # OpenVINO's Python packages report their use to an analytics service, from a process they fork at import. Nobody
    # asked for that; where the reporting package cannot be imported, they do without it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"This needs the Python package '{error.name}', which is not installed: "
            f"run pip install 'gristmill[{extra}]'."
        ) from None
