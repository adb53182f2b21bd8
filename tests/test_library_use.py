"""What a program that uses Gristmill as a library finds changed afterwards: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

#: What may be changed in a process, and is looked at before, while and after Gristmill is used.
WATCH = """
import asyncio, decimal, gc, locale, logging, os, signal, sys, threading, time, warnings

def mine(*_): pass

def state(running=False):
    # asyncio.run, which anybody may use, takes the interrupt while it runs.
    signals = [s for s in signal.valid_signals() if not (running and s == signal.SIGINT)]
    import structlog
    return {
        "signals": {s: signal.getsignal(s) for s in signals},
        "frozen objects": gc.get_freeze_count(),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "blocked modules": [name for name, module in sys.modules.items() if module is None],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "log": (structlog.is_configured(), list(logging.root.handlers), logging.root.level),
        "warnings": [each for each in warnings.filters if "gristmill" in str(each)],
        "hooks": (sys.excepthook, threading.excepthook, sys.meta_path[:], sys.stdout, sys.stderr),
        "loop policy": type(asyncio.get_event_loop_policy()),
        "numbers": (locale.setlocale(locale.LC_ALL), sys.getrecursionlimit(), sys.get_int_max_str_digits()),
        "umask": (os.umask(0o077), os.umask(0o022))[0] if not running else None,
    }

signal.signal(signal.SIGTERM, mine)
os.umask(0o022)
import polars
blocked_before = [name for name, module in sys.modules.items() if module is None]
before = state()
import gristmill
import gristmill.client, gristmill.engines.registry, gristmill.batches.host
assert state() == before, (state(), before)

seen, ended = [], threading.Event()
def watch():
    while not ended.is_set():
        seen.append(state(running=True))
        time.sleep(0.02)
watching = threading.Thread(target=watch)
watching.start()
"""

CHECK = """
ended.set()
watching.join()
after = state()
for name, value in before.items():
    assert after[name] == value, (name, value, after[name])
expected = state(running=True)
for each in seen:
    for name, value in expected.items():
        assert each[name] == value, (name, value, each[name])
print("unchanged")
"""


def run(program: str, *arguments: str, home: Path) -> None:
    text = WATCH + textwrap.dedent(program) + CHECK
    environment = os.environ | {"HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", text, *arguments], capture_output=True, text=True, env=environment, timeout=240
    )
    assert done.stdout.strip().endswith("unchanged"), done.stderr


SCORE = """
table = polars.DataFrame({"name": ["Ada", "Ben"], "years": [3, 20]})
options = dict(rubric="Score the miller.", scale=range(11), on=gristmill.EngineSettings(sys.argv[1]))
scored = gristmill.score(table, **options).frame
assert scored["score"].null_count() == 0

async def notebook():
    return gristmill.score(table, **options).frame

assert asyncio.run(notebook()).equals(scored)
"""


def test_scoring_changes_nothing_in_the_process_that_asks(tmp_path: Path) -> None:
    run(SCORE, "simulated", home=tmp_path)


def test_nor_does_scoring_with_the_embedded_engine(pulled_model: str) -> None:
    run(SCORE, "openvino", home=Path.home())


def test_nor_do_a_batch_host_and_its_engine(tmp_path: Path) -> None:
    program = """
    from pathlib import Path
    from gristmill.batches.host import BatchHost, HostSettings
    from gristmill.engines.registry import EngineSettings
    from gristmill.storage.open import StorageSettings

    async def use():
        host = BatchHost(HostSettings(StorageSettings(Path(sys.argv[1])), EngineSettings("simulated")))
        await host.start()
        await asyncio.sleep(0.3)
        await host.stop()

    asyncio.run(use())
    """
    run(program, str(tmp_path / "data"), home=tmp_path)


INTERRUPTED = """
import asyncio, os, signal, sys, threading, time
import polars, gristmill
table = polars.DataFrame({"name": [str(n) for n in range(200)]})
slow = gristmill.EngineSettings("simulated", options={"prefill_speed": 20, "slots": 1})
options = dict(rubric="Score.", scale=range(11), on=slow, resume=sys.argv[1])

def score():
    return gristmill.score(table, **options)

async def notebook():
    return score()

def interrupt():
    while not os.path.isdir(sys.argv[1]):
        time.sleep(0.1)
    time.sleep(1)
    signal.raise_signal(signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    asyncio.run(notebook()) if sys.argv[2] == "notebook" else score()
except KeyboardInterrupt:
    print("interrupted", threading.active_count(), flush=True)
"""


@pytest.mark.parametrize("where", ["program", "notebook"])
def test_an_interrupt_of_the_callers_ends_the_run_and_reaches_the_caller(tmp_path: Path, where: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path / "kept"), where],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["interrupted", "1"], done.stderr
    assert (tmp_path / "kept").is_dir()
    assert done.returncode == 0
