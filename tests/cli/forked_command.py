"""``gristmill`` in a process of its own, forked from one that has imported everything: the start is what takes long."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["gristmill.cli.main", "gristmill.engines.simulated"])


class Done(NamedTuple):
    returncode: int | None
    stdout: str
    stderr: str


def run_forked(folder: Path, words: list[str], environment: dict[str, str], stdin: bytes = b"") -> Done:
    """Run in ``folder``, with ``environment`` and none of the caller's own settings."""
    with tempfile.TemporaryDirectory() as outputs:
        files = [Path(outputs, name) for name in ("stdin", "stdout", "stderr")]
        files[0].write_bytes(stdin)
        environment = {"HOME": outputs, **environment}
        process = _context.Process(target=_command, args=(folder, words, environment, files))
        process.start()
        process.join(60)
        if process.exitcode is None:
            process.kill()
        return Done(process.exitcode, *(file.read_text() for file in files[1:]))


def _command(folder: Path, words: list[str], environment: dict[str, str], files: list[Path]) -> None:
    for name in [name for name in os.environ if name.startswith("GRISTMILL_")]:
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(folder)
    for number, file in enumerate(files):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Instead of the null device that the fork server gives its children.
    sys.stdin = open(0)  # noqa: SIM115 - for the life of the process
    sys.argv = ["gristmill", *words]
    from gristmill.cli.main import main

    main()
