"""What Gristmill costs beside a fast server: does it keep 2,000 rows a second busy over HTTP, on one core?

    python benchmarks/http_overhead [--rows 60000] [--row-bytes 10000] [--rate 2000] [--slots 64] [--runs 3] [--profile]

A batch with ``gristmill run --engine openai_compatible`` against ``server.py``, whose capacity is known. It does not
tell its slots (vLLM does not either), so the dispatcher has to find the window; finding it counts. Both processes
share the machine's cores.
"""

from __future__ import annotations

import argparse
import bisect
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import receipt

ENDPOINT = "/v1/chat/completions"


def write_input(path: Path, rows: int, row_bytes: int) -> None:
    """One shared rubric and a varying end, ``row_bytes`` a line."""
    rubric = ("Score the candidate from 0 to 10 by the criteria that follow. " * (row_bytes // 60))[: row_bytes - 300]
    with path.open("wb") as file:
        for index in range(rows):
            text = f"Candidate {index}: {index % 17} years of experience."
            messages = [{"role": "system", "content": rubric}, {"role": "user", "content": text}]
            body = {"model": "simulated", "messages": messages, "max_tokens": 8}
            line = {"custom_id": f"candidate-{index}", "method": "POST", "url": ENDPOINT, "body": body}
            file.write(json.dumps(line).encode() + b"\n")


class Watch:
    """A process's processor time and resident memory, sampled."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._times: list[float] = []
        self._cpu: list[float] = []
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def cpu_between(self, start: float, end: float) -> float:
        """Processor seconds between two moments of the monotonic clock."""
        first, last = bisect.bisect(self._times, start) - 1, bisect.bisect(self._times, end)
        return self._cpu[min(last, len(self._cpu) - 1)] - self._cpu[max(first, 0)]

    def _sample(self) -> None:
        while not self._stop.wait(0.05):
            try:
                times, memory = self._process.cpu_times(), self._process.memory_info().rss
            except psutil.NoSuchProcess:
                return
            self._times.append(time.monotonic())
            self._cpu.append(times.user + times.system)
            self.peak = max(self.peak, memory)


def measure(source: Path, options: argparse.Namespace, profile: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        script = Path(__file__).with_name("server.py")
        command = [sys.executable, str(script), str(options.rate), str(options.slots)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            server_watch = Watch(server.pid)
            watch = run(source, Path(folder), url, profile)
            stats = httpx.get(f"{url}/stats").json()
            server_watch.stop()
        finally:
            server.terminate()
            server.wait()
    start, end = stats["first"], stats["last"]
    seconds = end - start
    assert stats["rows"] == options.rows, stats
    return {
        "seconds": round(seconds, 2),
        "rows_per_second": round(stats["rows"] / seconds, 1),
        "server_busy": round(stats["slot_seconds"] / stats["slots"] / seconds, 4),
        "gristmill_cores": round(watch.cpu_between(start, end) / seconds, 3),
        "server_cores": round(server_watch.cpu_between(start, end) / seconds, 3),
        "most_in_flight": stats["most_in_flight"],
        "peak_resident_mb": round(watch.peak / 1e6, 1),
    }


def run(source: Path, folder: Path, url: str, profile: Path | None) -> Watch:
    """The batch, from start to end; returns what it cost."""
    output = folder / "out.jsonl"
    command = [sys.executable, "-m", "gristmill", "run", str(source), "-o", str(output)]
    command += ["--engine", "openai_compatible", "--url", url]
    with (folder / "log").open("w") as log:
        batch = subprocess.Popen(command, stdout=log, stderr=log)
        watch = Watch(batch.pid)
        sampler = start_profiler(batch.pid, profile)
        code = batch.wait()
    watch.stop()
    if sampler is not None:
        sampler.wait()
    assert code == 0, (folder / "log").read_text()
    return watch


def start_profiler(pid: int, output: Path | None) -> subprocess.Popen[bytes] | None:
    if output is None:
        return None
    command = ["py-spy", "record", "--pid", str(pid), "--rate", "200", "--format", "raw", "--output", str(output)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def print_profile(path: Path) -> None:
    """Share of samples that have a function anywhere on their stack, by function."""
    shares: dict[str, int] = {}
    total = 0
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        total += int(count)
        for frame in set(stack.split(";")):
            shares[frame] = shares.get(frame, 0) + int(count)
    for frame, count in sorted(shares.items(), key=lambda item: -item[1])[:70]:
        print(f"{count / total:6.1%}  {frame}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--row-bytes", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=2000.0, help="rows a second the server can do")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="one run under py-spy, and where its time went")
    parser.add_argument("--receipt", default="http-overhead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "input.jsonl"
        write_input(source, options.rows, options.row_bytes)
        if options.profile:
            output = Path(folder) / "profile"
            print(json.dumps(measure(source, options, output)))
            print_profile(output)
            return
        runs = []
        for _ in range(options.runs):
            runs.append(measure(source, options, None))
            print(json.dumps(runs[-1]), flush=True)
    content = {
        "rows": options.rows,
        "row_bytes": options.row_bytes,
        "server_capacity_rows_per_second": options.rate,
        "server_slots": options.slots,
        "median_server_busy": round(statistics.median(each["server_busy"] for each in runs), 4),
        "median_gristmill_cores": round(statistics.median(each["gristmill_cores"] for each in runs), 3),
        "measures": "from the server's first row to its last; finding the window included",
        "runs": runs,
    }
    path = receipt.write(options.receipt, content, ("aiohttp", "msgspec", "uvloop"))
    print(f"server busy {content['median_server_busy']:.1%}, {content['median_gristmill_cores']} cores: {path.name}")


if __name__ == "__main__":
    main()
