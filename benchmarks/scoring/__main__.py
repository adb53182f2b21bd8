"""``gristmill score`` from file to file: seconds, rows a second, memory, and what the command itself takes of it.

python benchmarks/scoring labels          2,000 rows, embedded engine, 1,700 shared tokens, 45 of a row's own
python benchmarks/scoring many            170,000 rows, simulated engine
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "embedded"))
import receipt
import workload


def table(path: Path, rows: int) -> None:
    pl.DataFrame(
        {"id": [f"c{row:06}" for row in range(rows)], "summary": [workload.candidate(row) for row in range(rows)]}
    ).write_csv(path)


class Ended:
    """Keeps what a pass notes of its batch, which is deleted with the rest in the end."""

    def __init__(self, note: Path) -> None:
        self._note = note
        self._stop = threading.Event()
        self.batch: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            if self._note.exists():
                try:
                    self.batch = msgspec.json.decode(self._note.read_bytes())
                except OSError:
                    continue
                return

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


class Peak:
    """Peak resident memory of a process and those it starts, together, sampled."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            try:
                every = [self._process, *self._process.children(recursive=True)]
                self._bytes = max(self._bytes, sum(each.memory_info().rss for each in every))
            except psutil.NoSuchProcess:
                continue

    def stop(self) -> int:
        """In MB."""
        self._stop.set()
        self._thread.join()
        return round(self._bytes / 1e6)


def measure(rows: int, engine: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table(folder / "table.csv", rows)
        (folder / "rubric.md").write_text(workload.rubric())
        command = [sys.executable, "-m", "gristmill", "score", "table.csv", "--rubric", "rubric.md", "--id", "id"]
        command += ["--scale", "0..10", "-o", "scores.parquet", "--engine", engine, "--method", "labels"]
        # Probability off the scale is this model's affair, not the measurement's.
        command += ["--most-off-scale", "1"]
        ended = Ended(folder / ".scores.parquet.gristmill" / "1" / "run" / "ended.json")
        began = time.perf_counter()
        running = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        peak = Peak(running.pid)
        _, said = running.communicate()
        seconds = time.perf_counter() - began
        ended.stop()
        assert running.returncode == 0, said
        scored = pl.read_parquet(folder / "scores.parquet")
    assert scored["id"].to_list() == [f"c{row:06}" for row in range(rows)]
    assert scored["score"].null_count() == 0
    batch = ended.batch
    rows_seconds = batch["completed_at"] - batch["in_progress_at"]
    return {
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds, 2),
        "rows_running_seconds": rows_seconds,
        "cached_share": round(
            batch["usage"]["input_tokens_details"]["cached_tokens"] / batch["usage"]["input_tokens"], 4
        ),
        "peak_resident_mb": peak.stop(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", choices=("labels", "many"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    engine, rows = ("openvino", 2_000) if options.part == "labels" else ("simulated", 170_000)
    rows = options.rows or rows
    runs = []
    for _ in range(options.runs):
        runs.append(measure(rows, engine))
        print(runs[-1], flush=True)
    median = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
    content = {"rows": rows, "engine": engine, "median": median, "runs": runs}
    print(receipt.write(f"scoring-{options.part}", content, ("polars", "msgspec")).name)


if __name__ == "__main__":
    main()
