"""``gristmill`` that kills itself just before it calls a method of its storage: killed_before.py MODULE:CLASS.METHOD
CALL ARGUMENTS ..., where CALL is which call of it, counted from 1."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

from gristmill.cli.main import main


def die_before(place: str, number: int) -> None:
    module, _, name = place.partition(":")
    owner, _, method = name.partition(".")
    target = getattr(importlib.import_module(module), owner)
    original = getattr(target, method)
    calls = 0

    def dying(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)

    setattr(target, method, dying)


if __name__ == "__main__":
    die_before(sys.argv[1], int(sys.argv[2]))
    sys.argv = ["gristmill", *sys.argv[3:]]
    main()
