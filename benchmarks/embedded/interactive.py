"""What an interactive request waits for on the embedded engine: alone, and beside a batch; and what the batch loses.

    python benchmarks/embedded/interactive.py [--rows 600] [--beside-rows 600] [--runs 4] [--requests 12] [--pause 8]

A server of its own on a free port. ``--runs`` times: ``--requests`` chat requests one after another (16 output tokens,
a new question each), half a second between them, while nothing else runs; a batch of ``--rows`` rows behind one rubric
(16 output tokens each) alone; and one of ``--beside-rows`` rows with requests beside it, ``--pause`` seconds between
them, for as long as it runs. A batch's pace is that of the rows between its first tenth and its last. What the requests
would compute alone, which is not the batch's to have, is told as well, as a share of the time.
"""

from __future__ import annotations

import argparse
import io
import itertools
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import openai

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import receipt
import rows
import workload

MODEL = "smollm2-135m-instruct"
OUTPUT_TOKENS = 16


class Latencies(NamedTuple):
    """In seconds."""

    requests: int
    median: float
    p95: float
    longest: float


def latencies(seconds: list[float]) -> Latencies:
    p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    return Latencies(len(seconds), *(round(each, 3) for each in (statistics.median(seconds), p95, max(seconds))))


@contextmanager
def server() -> Iterator[openai.OpenAI]:
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "gristmill", "serve", "--engine", "openvino", "--model", MODEL]
        command += ["--port", "0", "--data", data]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        try:
            for line in process.stderr:
                if line.startswith("Gristmill is ready: "):
                    break
            else:
                raise SystemExit("the server did not start")
            # Keep reading, or a full pipe would stop the server.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield openai.OpenAI(base_url=line.split()[-1], api_key="unused", timeout=600, max_retries=0)
        finally:
            process.terminate()
            process.wait()


def ask(client: openai.OpenAI, number: int) -> float:
    """Seconds that one interactive request takes."""
    words = random.Random(number).sample(workload.candidate(number).split(), 12)
    started = time.perf_counter()
    client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": f"Question {number}: what do these words say? {' '.join(words)}"}],
        max_completion_tokens=OUTPUT_TOKENS,
        temperature=0,
    )
    return time.perf_counter() - started


class Batch:
    """``count`` rows from the number ``first`` on."""

    def __init__(self, client: openai.OpenAI, first: int, count: int) -> None:
        self._client = client
        shared = workload.rubric()
        lines = "\n".join(rows.line(row, MODEL, OUTPUT_TOKENS, shared) for row in range(first, first + count))
        file = client.files.create(file=("rows.jsonl", io.BytesIO(lines.encode())), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        self._id, self._count = batch.id, count
        self._seen: list[tuple[float, int]] = []

    def ended(self) -> bool:
        batch = self._client.batches.retrieve(self._id)
        if batch.status in ("failed", "expired", "cancelled"):
            raise SystemExit(f"the batch is {batch.status}")
        if batch.request_counts:
            self._seen.append((time.perf_counter(), batch.request_counts.completed))
        return batch.status == "completed"

    def wait(self, share: float) -> None:
        """Until ``share`` of the rows have been answered."""
        while not self.ended() and (not self._seen or self._seen[-1][1] < share * self._count):
            time.sleep(0.1)

    @property
    def _middle(self) -> list[tuple[float, int]]:
        """When rows ended, and how many had by then, between the first tenth and the last. Rows end in bursts: from
        the end of one to the end of another, not to a moment before the next."""
        changes = [now for before, now in itertools.pairwise(self._seen) if now[1] > before[1]]
        return [each for each in changes if 0.1 * self._count <= each[1] <= 0.9 * self._count]

    @property
    def seconds(self) -> float:
        return self._middle[-1][0] - self._middle[0][0]

    @property
    def rows_per_second(self) -> float:
        return round((self._middle[-1][1] - self._middle[0][1]) / self.seconds, 3)


def measure(
    client: openai.OpenAI, count: int, beside_count: int, runs: int, requests: int, pause: float
) -> dict[str, Any]:
    numbers = iter(range(10**6))
    idle: list[float] = []
    beside: list[float] = []
    alone_pace, beside_pace = [], []
    first, own_seconds, beside_seconds = 0, 0.0, 0.0
    # The rubric is in the cache before anything is measured.
    Batch(client, 10**6, 64).wait(1)
    for _ in range(runs):
        for _ in range(requests):
            idle.append(ask(client, next(numbers)))
            time.sleep(0.5)
        alone = Batch(client, first, count)
        alone.wait(1)
        alone_pace.append(alone.rows_per_second)
        batch = Batch(client, first + count, beside_count)
        first += count + beside_count
        asked = len(beside)
        batch.wait(0.1)
        watching = threading.Thread(target=batch.wait, args=(0.9,))
        watching.start()
        while watching.is_alive():
            beside.append(ask(client, next(numbers)))
            watching.join(pause)
        batch.wait(1)
        beside_pace.append(batch.rows_per_second)
        own_seconds += (len(beside) - asked) * statistics.mean(idle)
        beside_seconds += batch.seconds
        print(latencies(idle), latencies(beside), alone_pace[-1], beside_pace[-1], flush=True)
    ratios = [with_requests / alone for with_requests, alone in zip(beside_pace, alone_pace, strict=True)]
    return {
        "idle_seconds": latencies(idle)._asdict(),
        "beside_a_batch_seconds": latencies(beside)._asdict(),
        "p95_ratio": round(latencies(beside).p95 / latencies(idle).p95, 2),
        "batch_rows_per_second": {"alone": alone_pace, "with_requests": beside_pace},
        "batch_pace_ratio": round(statistics.median(ratios), 3),
        "requests_own_share": round(own_seconds / beside_seconds, 3),
        "batch_pace_ratio_of_the_rest": round(statistics.median(ratios) / (1 - own_seconds / beside_seconds), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--beside-rows", type=int, default=600)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--pause", type=float, default=8.0)
    parser.add_argument("--receipt", default="embedded-interactive")
    options = parser.parse_args()
    with server() as client:
        results = measure(client, options.rows, options.beside_rows, options.runs, options.requests, options.pause)
    content = {
        "rows": options.rows,
        "beside_rows": options.beside_rows,
        "runs": options.runs,
        "pause_seconds": options.pause,
        "output_tokens": OUTPUT_TOKENS,
        "model": MODEL,
        "weights": "f16",
        "results": results,
    }
    path = receipt.write(options.receipt, content, ("openvino", "numpy"))
    print(results)
    print(f"receipt: {path.name}")


if __name__ == "__main__":
    main()
