"""A real llama.cpp server, asked as a careful user would ask it: slots in parallel, each reusing its cache."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from contenders import Prompt, Work, measure

from server_process import ServerProcess

#: Tokens a slot needs: the rubric, a row, its answer.
_SLOT_TOKENS = 2304


class Setting(NamedTuple):
    """``slots``: requests computed at a time (``-np``); ``unified``: one KV cache for all of them."""

    slots: int
    unified: bool

    def __str__(self) -> str:
        return f"-np {self.slots} {'--kv-unified' if self.unified else '--no-kv-unified'}"


def settings_of(slots: str) -> list[Setting]:
    """Each number of slots, with a cache for each of them and with one for all; ``slots`` as in "1,8"."""
    return [Setting(int(number), unified) for number in slots.split(",") for unified in (False, True)]


class LlamaServer(ServerProcess):
    name = "llama.cpp's server"
    model = "model"
    fields = {"cache_prompt": True}  # noqa: RUF012 - never written to

    def __init__(self, binary: Path, weights: Path, setting: Setting, more: Iterable[str] = ()) -> None:
        """``more``: arguments besides, such as threads or layers on GPUs."""
        super().__init__()
        self.slots = setting.slots
        self._binary, self._weights, self._setting, self._more = binary, weights, setting, list(more)

    def command(self, port: int) -> list[str]:
        command = [str(self._binary), "-m", str(self._weights), "--port", str(port), "--host", "127.0.0.1"]
        command += ["-c", str(_SLOT_TOKENS * self.slots), *str(self._setting).split()]
        # A slot of a model with a sliding window can go back to the rubric only where its cache has all of it.
        return [*command, "--swa-full", "-fa", "on", "--no-webui", *self._more]

    def environment(self) -> dict[str, str]:
        paths = [str(self._binary.parent), os.environ.get("LD_LIBRARY_PATH", "")]
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths))}

    def facts(self) -> dict[str, Any]:
        asked = subprocess.run([self._binary, "--version"], capture_output=True, text=True, env=self.environment())
        version = re.search(r"version: (.+)", asked.stdout + asked.stderr)
        offloaded = re.search(r"offloaded (\d+/\d+) layers to GPU", self.printed())
        return super().facts() | {
            "version": version and version.group(1).strip(),
            "layers_on_gpu": offloaded.group(1) if offloaded else "0",
        }


class Trial(NamedTuple):
    """The fastest setting, and the rows/s of each that was tried."""

    best: Setting
    rates: dict[str, float]


async def try_settings(
    make: Callable[[Setting], LlamaServer], settings: Iterable[Setting], prompts: Callable[[range], list[Prompt]],
    work: Work, rows: int,
) -> Trial:  # fmt: skip
    """``prompts`` gives the rows with these numbers; ``rows`` of them tell the settings apart. Raises RuntimeError
    where no setting works."""
    rates: dict[Setting, float] = {}
    failed: RuntimeError | None = None
    for setting in settings:
        server = make(setting)
        try:
            await server.start()
            await server.answer(prompts(range(3_000_000, 3_000_000 + 2 * setting.slots)), work)
            rates[setting] = (await measure(server, prompts(range(rows)), work)).rows_per_second
            print(f"{server.name} {setting}, {work.title}: {rates[setting]} rows/s", flush=True)
        except RuntimeError as error:
            # Such as one whose cache has no room on the GPU.
            failed = error
            print(f"{server.name} {setting}, {work.title}: {error}", flush=True)
        finally:
            await server.stop()
    if not rates:
        raise failed or RuntimeError("no setting to try")
    return Trial(max(rates, key=lambda each: rates[each]), {str(setting): rate for setting, rate in rates.items()})
