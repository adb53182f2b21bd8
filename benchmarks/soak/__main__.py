"""A server that runs for long: many batches, pruned as they end, and what it keeps hold of meanwhile.

    python benchmarks/soak [--rows 2000000] [--batch-rows 20000] [--at-once 4] [--watchers 0] [--folder FOLDER]

One server answers all rows with the simulated engine at zero latency. Each batch is downloaded and every row counted,
then its files are deleted; now and then ``gristmill admin prune`` runs beside the server. Every few seconds a sample is
taken of the server's resident memory, open handles, threads, database and write-ahead log, and of how long ``/health``
takes to answer, which is how long the event loop was held. ``--watchers`` read the dashboard's event stream meanwhile.
"""

from __future__ import annotations

import argparse
import concurrent.futures
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
import msgspec
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import receipt

ENDPOINT = "/v1/chat/completions"
SAMPLE_SECONDS = 2.0
#: Batches between two prunes.
PRUNE_EVERY = 10
#: Kept in the receipt, evenly over the run.
KEPT_SAMPLES = 60


class OutputLine(msgspec.Struct):
    custom_id: str


def write_input(path: Path, batch: int, rows: int) -> None:
    with path.open("wb") as file:
        for row in range(rows):
            messages = [
                {"role": "system", "content": "Score from 0 to 10. " * 10},
                {"role": "user", "content": f"{batch}/{row}"},
            ]
            body = {"model": "simulated", "messages": messages, "max_tokens": 8}
            line = {"custom_id": f"{batch}-{row}", "method": "POST", "url": ENDPOINT, "body": body}
            file.write(json.dumps(line).encode() + b"\n")


class Sampler:
    """Looks at the server from outside, in a thread."""

    def __init__(self, base_url: str, pid: int, data: Path) -> None:
        self._health = base_url.removesuffix("/v1") + "/health"
        self._server = psutil.Process(pid)
        self._data = data
        self._began = time.monotonic()
        self.samples: list[dict[str, Any]] = []
        self.delays: list[float] = []
        self.rows = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def take(self) -> dict[str, Any]:
        sample = {
            "seconds": round(time.monotonic() - self._began, 1),
            "rows": self.rows,
            "resident_mb": round(self._server.memory_info().rss / 1e6, 1),
            "open_handles": self._server.num_fds(),
            "threads": self._server.num_threads(),
            "database_mb": self._size("gristmill.db"),
            "write_ahead_log_mb": self._size("gristmill.db-wal"),
        }
        self.samples.append(sample)
        return sample

    def _size(self, name: str) -> float:
        try:
            return round((self._data / name).stat().st_size / 1e6, 2)
        except FileNotFoundError:
            return 0.0

    def _run(self) -> None:
        # One connection: what is measured is the loop, not the handshake.
        with httpx.Client(timeout=60) as client:
            next_sample = 0.0
            while not self._stop.wait(0.1):
                started = time.perf_counter()
                client.get(self._health)
                self.delays.append(time.perf_counter() - started)
                if time.monotonic() >= next_sample:
                    next_sample = time.monotonic() + SAMPLE_SECONDS
                    self.take()


def run_batch(base_url: str, folder: Path, number: int, rows: int) -> int:
    """The rows that came back; each must once."""
    source = folder / f"{number}.jsonl"
    write_input(source, number, rows)
    with httpx.Client(base_url=base_url, timeout=600) as client:
        with source.open("rb") as file:
            form = {"purpose": "batch"}
            uploaded = client.post("/files", data=form, files={"file": (source.name, file)}).raise_for_status().json()
        source.unlink()
        body = {"input_file_id": uploaded["id"], "endpoint": ENDPOINT, "completion_window": "30d"}
        batch = client.post("/batches", json=body).raise_for_status().json()
        while batch["status"] in ("validating", "in_progress", "finalizing"):
            time.sleep(0.2)
            batch = client.get(f"/batches/{batch['id']}").raise_for_status().json()
        assert batch["status"] == "completed", batch
        seen = []
        with client.stream("GET", f"/files/{batch['output_file_id']}/content") as answer:
            for line in answer.iter_lines():
                seen.append(msgspec.json.decode(line, type=OutputLine).custom_id)
        assert sorted(seen) == sorted(f"{number}-{row}" for row in range(rows)), "a row is missing or there twice"
        for file_id in (uploaded["id"], batch["output_file_id"]):
            client.delete(f"/files/{file_id}").raise_for_status()
    return len(seen)


def prune(data: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "gristmill",
        "admin",
        "prune",
        "--ended-before",
        "1m",
        "--files",
        "--data",
        str(data),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def watch(base_url: str, stop: threading.Event) -> None:
    """As a browser does that shows the dashboard."""
    while not stop.is_set():
        try:
            with httpx.stream("GET", base_url.removesuffix("/v1") + "/events", timeout=30) as events:
                events.raise_for_status()
                for _ in events.iter_lines():
                    if stop.is_set():
                        return
        except httpx.HTTPError:
            stop.wait(1.0)


def drive(base_url: str, sampler: Sampler, data: Path, folder: Path, options: argparse.Namespace) -> None:
    count = -(-options.rows // options.batch_rows)
    with concurrent.futures.ThreadPoolExecutor(options.at_once) as pool:
        sizes = [min(options.batch_rows, options.rows - number * options.batch_rows) for number in range(count)]
        running = [pool.submit(run_batch, base_url, folder, number, size) for number, size in enumerate(sizes)]
        for ended, batch in enumerate(concurrent.futures.as_completed(running), 1):
            sampler.rows += batch.result()
            if ended % PRUNE_EVERY == 0:
                prune(data)
                print(json.dumps(sampler.take()), flush=True)


def summary(sampler: Sampler, last: dict[str, Any]) -> dict[str, Any]:
    """Flat is what the second half of the run does not add to: the first one fills caches and pools."""
    samples, delays = sampler.samples, sorted(sampler.delays)
    half = [sample for sample in samples if sample["rows"] * 2 >= sampler.rows]
    middle, end = half[: max(len(half) // 4, 1)], half[-max(len(half) // 4, 1) :]

    def grown(name: str) -> float:
        before, after = (statistics.median(sample[name] for sample in part) for part in (middle, end))
        return round(after - before, 2)

    return {
        "grown_in_second_half": {
            name: grown(name) for name in ("resident_mb", "open_handles", "threads", "database_mb")
        },
        "peak": {
            name: max(sample[name] for sample in samples) for name in samples[0] if name not in ("seconds", "rows")
        },
        "at_the_end": last,
        "health_seconds": {
            "median": round(statistics.median(delays), 4),
            "p99": round(delays[int(len(delays) * 0.99)], 4),
            "longest": round(delays[-1], 4),
        },
        "samples": samples[:: max(len(samples) // KEPT_SAMPLES, 1)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--batch-rows", type=int, default=20_000)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--watchers", type=int, default=0, help="clients that read the dashboard's event stream")
    parser.add_argument("--folder", type=Path, default=None, help="where a few batches and their results fit")
    parser.add_argument("--receipt", default="soak")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as named:
        folder = Path(named)
        data = folder / "data"
        command = [sys.executable, "-m", "gristmill", "serve", "--engine", "simulated", "--port", "0"]
        command += ["--data", str(data), "--log-level", "error"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        stop = threading.Event()
        try:
            assert server.stderr is not None
            base_url = next(line for line in server.stderr if line.startswith("Gristmill is ready: ")).split()[-1]
            threading.Thread(target=lambda: [None for _ in server.stderr or ()], daemon=True).start()
            sampler = Sampler(base_url, server.pid, data)
            watchers = [
                threading.Thread(target=watch, args=(base_url, stop), daemon=True) for _ in range(options.watchers)
            ]
            for watcher in watchers:
                watcher.start()
            started = time.perf_counter()
            drive(base_url, sampler, data, folder, options)
            seconds = time.perf_counter() - started
            prune(data)
            sampler.stop()
            found = summary(sampler, sampler.take())
            assert server.poll() is None, "the server has ended"
        finally:
            stop.set()
            server.terminate()
            server.wait()
    content = {
        "rows": options.rows,
        "batch_rows": options.batch_rows,
        "batches_at_once": options.at_once,
        "dashboards": options.watchers,
        "every_row_exactly_once": True,
        "seconds": round(seconds, 1),
        "rows_per_second": round(options.rows / seconds, 1),
        **found,
    }
    path = receipt.write(options.receipt, content, ("uvicorn", "sqlalchemy", "obstore"))
    print(f"{content['rows_per_second']:,} rows/s; {json.dumps(found['grown_in_second_half'])}; receipt: {path.name}")


if __name__ == "__main__":
    main()
