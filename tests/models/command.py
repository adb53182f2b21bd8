"""``gristmill models`` in its own process, as a person runs it. A catalog model can be added to it,
and only packages of a name be installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gristmill.cli.models import app
from gristmill.engines import choice
from gristmill.models.catalog import CATALOG, CatalogModel, Part
from gristmill.user_error import UserError

COMMAND = Path(__file__)
Run = Callable[..., subprocess.CompletedProcess[str]]


def main() -> None:
    added = json.loads(os.environ.get("TEST_CATALOG", "null"))
    if added:
        added["parts"] = tuple(Part(*part) for part in added["parts"])
        added["documents"] = tuple(Part(*part) for part in added["documents"])
        CATALOG[added["name"]] = CatalogModel(**added)
    if installed := os.environ.get("TEST_INSTALLED"):
        choice._is_installed = lambda package: package.startswith(installed)  # type: ignore[assignment]
    try:
        app(prog_name="gristmill models")
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
