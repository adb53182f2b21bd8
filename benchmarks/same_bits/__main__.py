"""Whether a row's label scores are the same to the bit, whatever is computed beside it, and what that costs.

    python benchmarks/same_bits [--rows 1000] [--orders 20] [--engine openvino] [--model smollm2-135m-instruct]
    python benchmarks/same_bits --cost REVISION [--rows 256] [--runs 7]
    python benchmarks/same_bits --engine llama_cpp --cost same_bits=true [--rows 64] [--runs 7]

The same rows, of 5 to ``--words`` words behind one rubric, are scored again and again: in other orders, with few and
many rows at a time, in small and large steps, beside answers that are being written and requests that somebody waits
for, in so little KV memory that rows are preempted, with the rubric from the disk and computed anew, and on a worker
that is killed (SIGKILL) halfway. Each is compared with the first, number by number: the receipt counts the rows of
which any differs, and tells by how much.

``--cost`` scores new rows by this tree and by REVISION in turns, in processes that stay, and writes the ratios of rows
a second, and of rows a second of processor time; it wants a machine on which nothing else runs. With an option of the
engine instead of a revision, this tree is compared with itself without the option.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "embedded"))
import receipt
import workload
from cost import cost

from gristmill.engines.errors import EngineError, ErrorKind
from gristmill.engines.protocol import Engine, LabelRequest
from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.wire.completions import CompletionRequest

LABELS = [str(number) for number in range(11)]

Scores = dict[int, tuple[float, ...]]


def prompt(row: int, rubric: str, model: str, most_words: int) -> str:
    chosen = random.Random(5000 + row)
    words = workload.candidate(row).split()
    text = " ".join(chosen.choice(words) for _ in range(chosen.randint(5, most_words)))
    return workload.prompt_of(model)(row, rubric).replace(workload.candidate(row), f"Candidate: {text}")


class Case(NamedTuple):
    """``options`` of the engine; ``traffic``: other requests beside; ``kill`` the worker once half of the rows have
    been scored."""

    name: str
    options: dict[str, str]
    orders: int = 1
    traffic: bool = False
    kill: bool = False


class Bench:
    def __init__(self, options: argparse.Namespace, rows: range, threads: str) -> None:
        self.engine, self.model, self.words = options.engine, options.model, options.words
        # The rubric's first lines: each takes 25 tokens or so.
        self.rubric = "\n".join(workload.rubric().splitlines()[: options.rubric_lines])
        self.prompts = [self.prompt(row) for row in rows]
        self.threads = threads
        self.reference: Scores = {}

    def prompt(self, row: int) -> str:
        return prompt(row, self.rubric, self.model, self.words)

    @contextlib.asynccontextmanager
    async def started(self, options: dict[str, str]) -> AsyncIterator[Engine]:
        settings = {"threads": self.threads, "prefix_disk_gb": "0"} | options
        engine = create_engine(EngineSettings(self.engine, self.model, options=settings))
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()

    async def score(self, engine: Engine, order: list[int], kill: Callable[[], None] | None = None) -> Scores:
        found: Scores = {}
        places = asyncio.Semaphore(engine.capabilities.slots)

        async def one(row: int) -> None:
            async with places:
                while row not in found:
                    try:
                        request = LabelRequest(self.model, self.prompts[row], LABELS)
                        found[row] = (await engine.score(request)).logprobs  # type: ignore[attr-defined]
                    except EngineError as error:
                        if error.kind not in (ErrorKind.INTERRUPTED, ErrorKind.UNAVAILABLE):
                            raise
                        await asyncio.sleep(0.1)
            if kill is not None and len(found) == len(order) // 2:
                kill()

        await asyncio.gather(*(one(row) for row in order))
        return found

    async def run(self, case: Case) -> dict[str, Any]:
        """What came of a case, beside the reference."""
        differing, largest, scored = set[int](), 0.0, 0
        async with self.started(case.options) as engine:
            others = asyncio.create_task(self._traffic(engine)) if case.traffic else None
            for number in range(case.orders):
                order = list(range(len(self.prompts)))
                random.Random(f"{case.name} {number}").shuffle(order)
                found = await self.score(engine, order, kill_worker if case.kill else None)
                scored += len(found)
                for row, scores in found.items():
                    if scores != self.reference[row]:
                        differing.add(row)
                        apart = (abs(a - b) for a, b in zip(scores, self.reference[row], strict=True))
                        largest = max(largest, *apart)
            if others is not None:
                others.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await others
        found_here = {"scores_compared": scored, "rows_that_differ": len(differing), "largest_difference": largest}
        print(f"{case.name}: {found_here}", flush=True)
        return {"case": case.name, "options": case.options, "orders": case.orders, **found_here}

    async def _traffic(self, engine: Engine) -> None:
        """Eight texts are being written all the time, and every third of a second somebody asks."""
        numbers = iter(range(10**9))

        async def write(interactive: bool, tokens: int) -> None:
            text = self.prompt(10**6 + next(numbers))
            body = {"model": self.model, "prompt": text, "max_tokens": tokens, "temperature": 0.7, "seed": 1}
            await engine.complete(msgspec.convert(body, CompletionRequest), interactive=interactive)

        async def again_and_again(interactive: bool) -> None:
            while True:
                await write(interactive, 4 if interactive else 24)
                await asyncio.sleep(0.3 if interactive else 0)

        await asyncio.gather(*(again_and_again(number == 0) for number in range(9)))


def kill_worker() -> None:
    for child in psutil.Process().children(recursive=True):
        if "gristmill" in " ".join(child.cmdline()):
            child.send_signal(signal.SIGKILL)


def cases_of(engine: str, orders: int, small_kv: str, threads: int) -> list[Case]:
    cases = [
        Case("the same again, in other orders", {}, orders=orders),
        *(Case(f"{rows} rows at a time", {"max_rows": rows}) for rows in ("3", "16", "64")),
        *(Case(f"steps of {tokens} tokens", {"step_tokens": tokens}) for tokens in ("64", "500")),
        Case("beside answers being written, and interactive requests", {}, orders=2, traffic=True),
        Case("in little KV memory, where rows are preempted", {"kv_cache_gb": small_kv, "max_rows": "16"}),
        Case("prefix written to the disk", {"prefix_disk_gb": "1"}),
        Case("prefix read from the disk", {"prefix_disk_gb": "1"}),
        Case("the worker is killed halfway", {"prefix_disk_gb": "1"}, kill=True),
        Case("the worker is killed halfway, nothing on disk", {}, kill=True),
    ]
    if threads > 1:
        cases.append(Case("on one thread (not promised)", {"threads": "1"}))
    if engine == "openvino":
        cases.append(Case("OpenVINO's attention (not promised)", {"attention": "openvino"}))
    return cases


async def compare(options: argparse.Namespace) -> None:
    threads = options.threads or len(os.sched_getaffinity(0))
    bench = Bench(options, range(options.rows), str(threads))
    base = dict(each.split("=", 1) for each in options.option)
    with tempfile.TemporaryDirectory() as cache:
        # Prefixes of its own; models and kernels are the user's.
        link_cache(Path(cache))
        async with bench.started(base) as engine:
            bench.reference = await bench.score(engine, list(range(options.rows)))
            computing = engine.capabilities.computing
        found = []
        for case in cases_of(options.engine, options.orders, options.small_kv, threads):
            if any(text in case.name for text in options.only.split(",")):
                found.append(await bench.run(case._replace(options=base | case.options)))
    content = {
        "engine": options.engine, "model": options.model, "options": base, "rows": options.rows, "threads": threads,
        "computes_on": computing.on if computing else None,
        "rubric_lines": options.rubric_lines, "words_a_row": [5, options.words], "numbers_a_row": len(LABELS),
        "cases": found,
    }  # fmt: skip
    if options.receipt:
        packages = ("openvino",) if options.engine == "openvino" else ("xllamacpp",)
        print(receipt.write(options.receipt, content, packages))


def link_cache(folder: Path) -> None:
    from gristmill.models.cache import cache_folder

    for each in cache_folder().iterdir():
        if each.name != "prefixes":
            (folder / each.name).symlink_to(each)
    os.environ["GRISTMILL_CACHE"] = str(folder)


async def serve(options: argparse.Namespace) -> None:
    """Score rows by number, as the lines of standard input say: first, end."""
    bench = Bench(options, range(0), str(options.threads or len(os.sched_getaffinity(0))))
    async with bench.started(dict(each.split("=", 1) for each in options.option)) as engine:
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            first, end = map(int, line.split())
            bench.prompts = [bench.prompt(row) for row in range(first, end)]
            began, used = time.perf_counter(), processor_seconds()
            await bench.score(engine, list(range(end - first)))
            rows = end - first
            print(rows / (time.perf_counter() - began), rows / (processor_seconds() - used), flush=True)


def processor_seconds() -> float:
    """Of the worker."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(each.user + each.system for each in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engine", default="openvino", choices=("openvino", "llama_cpp"))
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--words", type=int, default=120, help="of a row at most")
    parser.add_argument("--rubric-lines", type=int, default=67)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--option", "-O", action="append", default=[], help="of the engine, for all cases")
    parser.add_argument("--small-kv", default="0.12", help="GiB of KV cache in which rows are preempted")
    parser.add_argument("--only", default="", help="cases whose name has one of these texts")
    parser.add_argument(
        "--cost", metavar="REVISION", help="rows a second beside this revision, or without this option, in turns"
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--busy", action="store_true", help="note in the receipt that other work was running")
    parser.add_argument("--receipt", default="", help="write benchmarks/receipts/NAME.json")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options))
    elif options.cost:
        cost(options)
    else:
        asyncio.run(compare(options))


if __name__ == "__main__":
    main()
