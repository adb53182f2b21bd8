"""The pipeline without a model: upload, validate, run and write files at zero latency.

    python benchmarks/pipeline [--rows 170000] [--row-bytes 10000] [--runs 3] [--profile] [--database URL]

Everything the server does except computing. Client and server share the machine, as they would with one user.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import itertools

import receipt

ENDPOINT = "/v1/chat/completions"
PHASES = ("upload", "validate", "run", "finalize", "download")


def write_input(path: Path, rows: int, row_bytes: int) -> None:
    """One shared rubric and a varying end, ``row_bytes`` a line."""
    rubric = "Score the candidate from 0 to 10 by the criteria that follow. " * (row_bytes // 60)
    with path.open("wb") as file:
        for index in range(rows):
            candidate = f"Candidate {index}: {index % 17} years of experience."
            line = {"custom_id": f"candidate-{index}", "method": "POST", "url": ENDPOINT}
            messages = [{"role": "system", "content": ""}, {"role": "user", "content": candidate}]
            line["body"] = {"model": "simulated", "messages": messages, "max_tokens": 8}
            room = row_bytes - len(json.dumps(line)) - 1
            messages[0]["content"] = rubric[:room]
            file.write(json.dumps(line).encode() + b"\n")


class Watch:
    """Peak resident memory of the server and its planner, sampled together, and their processor time."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def cpu(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system + times.children_user + times.children_system

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.05):
            self.peak = max(self.peak, sum(map(_resident, [self._process, *self._process.children()])))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def measure(source: Path, rows: int, profile: Path | None, database: str | None) -> dict[str, Any]:
    """One run against a fresh server: wall and server processor seconds by phase."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        command = [sys.executable, "-m", "gristmill", "serve", "--engine", "simulated", "--port", "0"]
        command += ["--data", f"{folder}/data", "--log-level", "error"]
        environment = dict(os.environ)
        if database is not None:
            # Not in the command: there may be a password in it.
            environment["GRISTMILL_DATABASE"] = database
            environment.setdefault("GRISTMILL_BLOBS", f"{folder}/blobs")
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        try:
            assert server.stderr is not None
            base_url = server.stderr.readline().split()[-1]
            sampler = start_profiler(server.pid, profile)
            watch = Watch(server.pid)
            result = drive(httpx.Client(base_url=base_url, timeout=600), source, Path(folder), watch, rows)
            watch.stop()
            if sampler is not None:
                sampler.send_signal(2)
                sampler.wait()
        finally:
            server.terminate()
            server.wait()
    return result


def drive(client: httpx.Client, source: Path, folder: Path, watch: Watch, rows: int) -> dict[str, Any]:
    marks: list[tuple[str, float, float]] = [("start", time.perf_counter(), watch.cpu())]

    def mark(phase: str) -> None:
        marks.append((phase, time.perf_counter(), watch.cpu()))

    with source.open("rb") as file:
        form = {"purpose": "batch"}
        uploaded = client.post("/files", data=form, files={"file": (source.name, file)}).raise_for_status().json()
    mark("upload")
    body = {"input_file_id": uploaded["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
    batch = client.post("/batches", json=body).raise_for_status().json()
    ends = {"validating": "validate", "in_progress": "run", "finalizing": "finalize"}
    status = batch["status"]
    while status in ends:
        time.sleep(0.05)
        batch = client.get(f"/batches/{batch['id']}").json()
        while status != batch["status"] and status in ends:
            mark(ends[status])
            status = {"validating": "in_progress", "in_progress": "finalizing", "finalizing": "completed"}[status]
    assert batch["status"] == "completed", batch
    lines = 0
    with (
        client.stream("GET", f"/files/{batch['output_file_id']}/content") as answer,
        (folder / "out").open("wb") as out,
    ):
        for chunk in answer.iter_bytes():
            lines += chunk.count(b"\n")
            out.write(chunk)
    mark("download")
    assert lines == rows == batch["request_counts"]["completed"], (lines, batch["request_counts"])
    phases = {
        name: {"seconds": round(end - start, 3), "server_cpu_seconds": round(cpu_end - cpu_start, 3)}
        for (_, start, cpu_start), (name, end, cpu_end) in itertools.pairwise(marks)
    }
    to_files_written = marks[-2][1] - marks[0][1]
    return {
        "rows_per_second": round(rows / to_files_written, 1),
        "seconds": round(to_files_written, 2),
        "peak_resident_mb": round(watch.peak / 1e6, 1),
        "phases": phases,
    }


def start_profiler(pid: int, output: Path | None) -> subprocess.Popen[bytes] | None:
    if output is None:
        return None
    command = ["py-spy", "record", "--pid", str(pid), "--rate", "200", "--format", "raw", "--output", str(output)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def print_profile(path: Path) -> None:
    """Share of samples by the innermost Gristmill function, or the library below the event loop."""
    places: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame for frame in stack.split(";") if "gristmill" in frame]
        innermost = stack.split(";")[-1].split(" (")[0]
        ours = frames[-1].split(" (") if frames else ["(other)"]
        place = f"{ours[-1].split('gristmill/')[-1].split(':')[0]} {ours[0]} > {innermost}"
        places[place] += int(count)
    total = sum(places.values())
    for place, count in places.most_common(25):
        print(f"{count / total:6.1%}  {place}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=170_000)
    parser.add_argument("--row-bytes", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--database",
        help="of PostgreSQL, with nothing of Gristmill's in it; SQLite without, and beside it in turns with it",
    )
    parser.add_argument("--profile", action="store_true", help="one run under py-spy, and where its time went")
    parser.add_argument("--folder", type=Path, default=None, help="where 2 to 4 times the input's size fits")
    parser.add_argument("--receipt", default="pipeline")
    parser.add_argument("--blobs", help="as serve takes it, such as s3://BUCKET/PREFIX; by default in the data folder")
    options = parser.parse_args()
    if options.blobs is not None:
        os.environ["GRISTMILL_BLOBS"] = options.blobs
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source = Path(folder) / "input.jsonl"
        write_input(source, options.rows, options.row_bytes)
        if options.profile:
            output = Path(folder) / "profile"
            print(json.dumps(measure(source, options.rows, output, options.database), indent=2))
            print_profile(output)
            return
        runs, beside = [], []
        for _ in range(options.runs):
            if options.database is not None:
                beside.append(measure(source, options.rows, None, None))
                print("SQLite", json.dumps(beside[-1]), flush=True)
            runs.append(measure(source, options.rows, None, options.database))
            print(json.dumps(runs[-1]), flush=True)
    median = statistics.median(run["rows_per_second"] for run in runs)
    content = {
        "database": "SQLite" if options.database is None else "PostgreSQL",
        "rows": options.rows,
        "row_bytes": options.row_bytes,
        "median_rows_per_second": median,
        "peak_resident_mb": max(run["peak_resident_mb"] for run in runs),
        "measures": "from the first byte of the upload until both result files are written; download apart",
        "blobs": "folder" if options.blobs is None else options.blobs.partition("://")[0],
        "runs": runs,
    }
    if beside:
        ratios = [each["rows_per_second"] / other["rows_per_second"] for each, other in zip(runs, beside, strict=True)]
        content |= {"sqlite_runs": beside, "median_ratio_to_sqlite": round(statistics.median(ratios), 3)}
        print(f"times SQLite: {content['median_ratio_to_sqlite']}")
    path = receipt.write(options.receipt, content, ("uvicorn", "msgspec", "sqlalchemy", "obstore"))
    print(f"median {median:,.0f} rows/s; receipt: {path.name}")


if __name__ == "__main__":
    main()
