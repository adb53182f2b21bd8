"""A whole job through a real server: time, tokens, reuse, failures, and the server's memory over the run.

    python benchmarks/proof.py ROWS --receipt NAME [--model MODEL] -- [flags of gristmill serve]

The rows are those of ``benchmarks/rows.py``; they are uploaded, run as a batch and downloaded over HTTP, and every row
must come back exactly once. Memory is the resident memory of the server and of the processes it has started.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
import receipt
import rows as rows_file

#: Points of the run at which progress and memory are kept.
_POINTS = 20


class _OutputLine(msgspec.Struct):
    custom_id: str


def memory_mb(pid: int) -> dict[str, int]:
    server = psutil.Process(pid)
    workers = sum(child.memory_info().rss for child in server.children(recursive=True))
    return {"server": server.memory_info().rss // 10**6, "workers": workers // 10**6}


def run(base_url: str, pid: int, count: int, model: str, max_tokens: int) -> dict[str, Any]:
    shared = rows_file.workload.rubric()
    with tempfile.TemporaryFile() as source, httpx.Client(base_url=base_url, timeout=600) as client:
        for row in range(count):
            source.write(rows_file.line(row, model, max_tokens, shared).encode() + b"\n")
        source.seek(0)
        uploaded = client.post("/files", files={"file": ("rows.jsonl", source)}, data={"purpose": "batch"})
        job = {"input_file_id": uploaded.raise_for_status().json()["id"], "endpoint": "/v1/chat/completions"}
        started = time.perf_counter()
        batch = client.post("/batches", json={**job, "completion_window": "30d"}).raise_for_status().json()
        progress: list[dict[str, Any]] = []
        while batch["status"] not in ("completed", "failed", "cancelled", "expired"):
            time.sleep(0.2)
            batch = client.get(f"/batches/{batch['id']}").raise_for_status().json()
            done = batch["request_counts"]["completed"] + batch["request_counts"]["failed"]
            if done * _POINTS >= count * (len(progress) + 1) or (not progress and done):
                seconds = round(time.perf_counter() - started, 1)
                progress.append({"seconds": seconds, "rows": done, "memory_mb": memory_mb(pid)})
        seconds = time.perf_counter() - started
        found = _ids(client, batch.get("output_file_id")) + _ids(client, batch.get("error_file_id"))
        assert sorted(found) == sorted(f"candidate-{row}" for row in range(count)), "a row is missing or there twice"
        return {
            "seconds": round(seconds, 1),
            "rows_per_second": round(count / seconds, 2),
            "status": batch["status"],
            "request_counts": batch["request_counts"],
            "usage": batch.get("usage"),
            "every_row_exactly_once": True,
            "progress": progress,
        }


def _ids(client: httpx.Client, file_id: str | None) -> list[str]:
    if file_id is None:
        return []
    with client.stream("GET", f"/files/{file_id}/content") as answer:
        return [msgspec.json.decode(line, type=_OutputLine).custom_id for line in answer.iter_lines() if line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", type=int)
    parser.add_argument("--receipt", required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--max-tokens", type=int, default=4)
    mine, _, flags = "\n".join(sys.argv[1:]).partition("\n--\n")
    options = parser.parse_args(mine.split("\n"))
    served = flags.split("\n") if flags else []
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "gristmill", "serve", "--port", "0", "--data", data, *served]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            ready = next(line for line in server.stderr if line.startswith("Gristmill is ready: "))
            found = run(ready.split()[-1], server.pid, options.rows, options.model, options.max_tokens)
        finally:
            server.terminate()
            server.wait()
    path = receipt.write(options.receipt, {"rows": options.rows, "flags": served, "result": found})
    print(f"{found['rows_per_second']} rows/s, {found['seconds']} s, {found['usage']}; receipt: {path.name}")


if __name__ == "__main__":
    main()
