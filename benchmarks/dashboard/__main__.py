"""What the dashboard costs: how fast its pages come, and what twenty open ones take from a batch that runs.

    python benchmarks/dashboard [--batches 100] [--rows 10000] [--viewers 20] [--rounds 6] [--seconds 15]
        [--latency 0.25] [--receipt dashboard]

The database has ``--batches`` unfinished batches of ``--rows`` rows, half of which have results, one in twenty of them
a failure. As many batches run at a time as there are places, on the simulated engine. Each page is asked for ``--asks``
times while they run; then rounds with nobody looking and rounds with ``--viewers`` event streams open take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import receipt

ENDPOINT = "/v1/chat/completions"


@contextlib.contextmanager
def server(data: Path, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "gristmill", "serve", "--engine", "simulated", "--port", "0", "--data", str(data)]
    process = subprocess.Popen([*command, "--log-level", "error", *options], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("Gristmill is ready: "):
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield line.split()[-1].removesuffix("/v1"), psutil.Process(process.pid)
                break
        else:
            raise SystemExit("the server did not start")
    finally:
        process.terminate()
        process.wait()


def fill(data: Path, batches: int, rows: int) -> None:
    """One batch through the API, as the server stores it; the others are copies of it."""
    with server(data, "-O", "latency=5") as (base, _), httpx.Client(base_url=base, timeout=60) as client:
        rubric = "Score the candidate from 0 to 10 by the criteria that follow. " * 30
        lines = []
        for number in range(rows):
            messages = [{"role": "system", "content": rubric}, {"role": "user", "content": f"Candidate {number}"}]
            body = {"model": "simulated", "messages": messages, "max_tokens": 8}
            lines.append(json.dumps({"custom_id": f"c-{number}", "method": "POST", "url": ENDPOINT, "body": body}))
        made = client.post("/v1/files", files={"file": ("rows.jsonl", "\n".join(lines))}, data={"purpose": "batch"})
        wanted = {"input_file_id": made.json()["id"], "endpoint": ENDPOINT, "completion_window": "30d"}
        batch = client.post("/v1/batches", json=wanted).json()["id"]
        while client.get(f"/v1/batches/{batch}").json()["status"] != "in_progress":
            time.sleep(0.1)
        client.post(f"/v1/batches/{batch}/pause")
        time.sleep(6)
    with contextlib.closing(sqlite3.connect(data / "gristmill.db")) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(batches)")]
        (seq,) = database.execute("SELECT seq FROM batches").fetchone()
        done, failed = rows // 2, rows // 40
        changed = {
            "id": "'batch_' || printf('%032x', :to)", "seq": ":to", "completed": str(done - failed),
            "failed": str(failed),
            "paused_at": "NULL", "lease_owner": "NULL", "lease_until": "0", "input_tokens": str(done * 500),
            "cached_tokens": str(done * 480), "output_tokens": str(done * 8),
        }  # fmt: skip
        answer = json.dumps(
            {"error": {"message": "Row 17 is longer than 4,096 tokens.", "code": "context_length_exceeded"}}
        )
        line = json.dumps(
            {
                "id": "batch_req_1",
                "custom_id": "c-1",
                "response": {"status_code": 400, "body": json.loads(answer)},
                "error": None,
            }
        )
        with database:
            for to in range(seq + 1, seq + batches + 1):
                values = ", ".join(changed.get(name, f'"{name}"') for name in columns)
                database.execute(f"INSERT INTO batches SELECT {values} FROM batches WHERE seq = {seq}", {"to": to})
                database.execute(
                    "INSERT INTO rows SELECT ?, line, custom_id, offset, length, original FROM rows WHERE batch = ?",
                    (to, seq),
                )
                database.execute(
                    "INSERT INTO results (batch, line, succeeded, payload) SELECT ?, line, line % 20 <> 0, ? FROM rows"
                    " WHERE batch = ? AND line <= ?",
                    (to, line.encode(), seq, done),
                )


class Look:
    """A browser's part of an open page: its event stream, read and thrown away."""

    def __init__(self, base: str, path: str) -> None:
        self.bytes = self.events = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(base, path), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """With its next event."""
        self._stop.set()

    def _read(self, base: str, path: str) -> None:
        with httpx.stream("GET", base + path, timeout=60) as answer:
            for piece in answer.iter_raw():
                self.bytes += len(piece)
                self.events += 1
                if self._stop.is_set():
                    return


def rows_done(client: httpx.Client) -> float:
    text = client.get("/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("gristmill_rows_total{"))


def turn(
    base: str, process: psutil.Process, client: httpx.Client, paths: list[str], seconds: float
) -> dict[str, float]:
    looks = [Look(base, path) for path in paths]
    time.sleep(3)
    began, before, used = time.monotonic(), rows_done(client), sum(process.cpu_times()[:2])
    time.sleep(seconds)
    rows, cpu, took = rows_done(client) - before, sum(process.cpu_times()[:2]) - used, time.monotonic() - began
    for look in looks:
        look.close()
    sent = sum(look.bytes for look in looks) / took
    return {
        "rows_per_second": rows / took,
        "cpu_seconds_per_1000_rows": 1000 * cpu / rows,
        "sent_bytes_per_second": sent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--latency", default="0.25", help="of the engine, seconds; 64 requests are in flight")
    parser.add_argument("--asks", type=int, default=100, help="for each page")
    parser.add_argument("--receipt", default="dashboard")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        fill(data, options.batches, options.rows)
        with (
            server(data, "-O", f"latency={options.latency}") as (base, process),
            httpx.Client(base_url=base, timeout=60) as client,
        ):
            time.sleep(5)
            listed = client.get("/v1/batches?limit=100").json()["data"]
            running = next(each["id"] for each in listed if (each["gristmill"] or {}).get("rows_per_second"))
            pages: dict[str, Any] = {}
            for path in ("/", f"/batches/{running}", f"/batches/{running}/results", f"/batches/{running}/copy"):
                times = []
                for _ in range(options.asks):
                    began = time.monotonic()
                    client.get(path).raise_for_status()
                    times.append(1000 * (time.monotonic() - began))
                cut = statistics.quantiles(times, n=20)
                name = path.replace(running, "ID")
                pages[name] = {"median_ms": round(statistics.median(times), 1), "p95_ms": round(cut[18], 1)}
                print(name, pages[name], flush=True)
            looked = ["/events" if number % 2 else f"/batches/{running}/events" for number in range(options.viewers)]
            rounds: dict[str, list[dict[str, float]]] = {"alone": [], "watched": []}
            for _ in range(options.rounds):
                rounds["alone"].append(turn(base, process, client, [], options.seconds))
                rounds["watched"].append(turn(base, process, client, looked, options.seconds))
            found = {
                name: {key: round(statistics.median(each[key] for each in taken), 3) for key in taken[0]}
                for name, taken in rounds.items()
            }
            for name, figures in found.items():
                print(name, figures)
            slower = 1 - found["watched"]["rows_per_second"] / found["alone"]["rows_per_second"]
            dearer = found["watched"]["cpu_seconds_per_1000_rows"] / found["alone"]["cpu_seconds_per_1000_rows"] - 1
            print(f"slower by {slower:.1%}; processor time a row more by {dearer:.1%}")
            receipt.write(
                options.receipt, {"options": vars(options), "pages": pages, "rounds": rounds, "medians": found}
            )


if __name__ == "__main__":
    main()
