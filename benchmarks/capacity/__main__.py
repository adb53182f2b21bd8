"""What the capacity model starts from, and how near it comes to runs: two measurements and their prediction.

    python benchmarks/capacity [--database postgresql://...] [--runs 5] [--seconds 10]

``commits``: groups of results are stored through the storage layer; seconds of a transaction and of each row of it, by
least squares over the medians. PostgreSQL must wait for the disk, as it does unless it is told not to, and have nothing
of Gristmill's in it; without ``--database`` only SQLite is measured. ``scaling``: ``gristmill run`` with 1, 2 and 4
replicas whose service time is fixed. What one does is what the model is given; what 2 and 4 do is predicted and
compared. It writes the receipt, and the table in docs/explanation/capacity.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import receipt

from gristmill.planning.capacity import Figures, job_seconds, simulate
from gristmill.storage.records import BatchRecord, Stage
from gristmill.storage.row_records import Result, Row
from gristmill.storage.sql.store import SqlMetadataStore

_GROUPS = (1, 8, 32, 128, 512)
#: Commits of each size, and their rows' payload in bytes.
_COMMITS, _PAYLOAD = 40, 600
_LEASE_SECONDS = 3_600.0
#: Of a replica: seconds for a row, and rows at a time. One kind is as slow as a model, the other as fast as a small one
#: on a GPU.
_KINDS = {"slow": (0.1, 8), "fast": (0.1, 64)}
_REPLICAS = (1, 2, 4)
_SUMMARY = re.compile(r"rows in [^:]+: (?P<rate>[\d,.]+) rows/s")
_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "capacity.md"
_BEGIN, _END = "<!-- benchmarks/capacity writes this -->\n", "<!-- to here -->"
#: Of the table: an embedding or a small model, and what 17 rows/s were measured for (a small model on two CPU cores).
_REPLICA_RATE = 17.0
_JOBS = {"170,000": 170_000, "10 million": 10_000_000, "1 billion": 1_000_000_000}


class CommitCost(NamedTuple):
    """Seconds."""

    transaction: float
    row: float


async def commit_seconds(url: str) -> dict[int, float]:
    """The median of a commit, by rows in it."""
    store = SqlMetadataStore.at(url)
    await store.start()
    try:
        total = _COMMITS * sum(_GROUPS)
        await store.batches.add(
            BatchRecord(
                seq=0, id=f"batch_{os.urandom(8).hex()}", endpoint="/v1/chat/completions", input_file_id="file-1",
                completion_window="24h", status="in_progress", created_at=1, expires_at=2**40, total=total,
            )
        )  # fmt: skip
        claim = await store.batches.claim("benchmark", 0, _LEASE_SECONDS, Stage.EXECUTION)
        assert claim is not None
        for first in range(0, total, 10_000):
            new = [
                Row(line, f"row-{line}", 100 * line, 100) for line in range(first + 1, min(first + 10_000, total) + 1)
            ]
            await store.rows.add(claim.lease, new)
        taken: dict[int, list[float]] = {group: [] for group in _GROUPS}
        line = 0
        for _ in range(_COMMITS):
            for group in _GROUPS:
                results = [Result(each, True, bytes(_PAYLOAD), 10, 0, 5) for each in range(line + 1, line + group + 1)]
                line += group
                began = time.perf_counter()
                await store.rows.commit(claim.lease, results)
                taken[group].append(time.perf_counter() - began)
        await store.rows.clear(claim.lease)
        return {group: statistics.median(seconds) for group, seconds in taken.items()}
    finally:
        await store.stop()


def fitted(seconds: dict[int, float]) -> CommitCost:
    """Relative errors count, so that the small groups do."""
    groups = np.array(list(seconds), float)
    measured = np.array(list(seconds.values()))
    columns = np.stack([np.ones_like(groups), groups], axis=1) / measured[:, None]
    (transaction, row), *_ = np.linalg.lstsq(columns, np.ones_like(groups), rcond=None)
    return CommitCost(max(float(transaction), 0.0), max(float(row), 0.0))


def commits(url: str, runs: int) -> dict[str, Any]:
    found = [asyncio.run(commit_seconds(url)) for _ in range(runs)]
    medians = {group: statistics.median(run[group] for run in found) for group in _GROUPS}
    cost = fitted(medians)
    return {
        "ms_by_rows": {str(group): round(1000 * seconds, 3) for group, seconds in medians.items()},
        "transaction_ms": round(1000 * cost.transaction, 3),
        "row_us": round(1e6 * cost.row, 2),
        "runs_ms": [{str(group): round(1000 * seconds, 3) for group, seconds in run.items()} for run in found],
    }


def run_rate(folder: Path, rows: int, replicas: int, latency: float, slots: int) -> float:
    """Rows/s of ``gristmill run``, by its own summary."""
    source = folder / "rows.jsonl"
    rubric = "Score the candidate from 0 to 10 by the criteria that follow. " * 130
    with source.open("w") as file:
        for number in range(rows):
            messages = [{"role": "system", "content": rubric}, {"role": "user", "content": f"Candidate {number}."}]
            body = {"model": "simulated", "messages": messages, "max_tokens": 4}
            line = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    answers = folder / "answers.jsonl"
    answers.unlink(missing_ok=True)
    command = [sys.executable, "-m", "gristmill", "run", str(source), "-o", str(answers), "--engine", "ray"]
    command += ["--replicas", f"{replicas}:{replicas}", "--replica-engine", "simulated", "-O", f"latency={latency}"]
    command += ["-O", f"slots={slots}", "-O", "cached_prompts=0", "-O", "replica_cpus=0"]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HOME": str(folder)})
    found = _SUMMARY.search(ended.stderr)
    assert ended.returncode == 0 and found is not None, ended.stderr
    return float(found["rate"].replace(",", ""))


def scaling(runs: int, seconds: float) -> dict[str, Any]:
    """Measured in turns, so that what the machine does besides is in all of them."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (latency, slots) in _KINDS.items():
            rates: dict[int, list[float]] = {replicas: [] for replicas in _REPLICAS}
            for _ in range(runs):
                for replicas in _REPLICAS:
                    rows = int(seconds * replicas * slots / latency)
                    rates[replicas].append(run_rate(Path(folder), rows, replicas, latency, slots))
                    print(name, replicas, rates[replicas][-1], flush=True)
            medians = {replicas: statistics.median(each) for replicas, each in rates.items()}
            figures = Figures(medians[1], spread=0.0)
            predicted = {replicas: simulate(figures, replicas).rate for replicas in _REPLICAS}
            found[name] = {
                "latency": latency,
                "slots": slots,
                "measured": {str(replicas): round(rate, 1) for replicas, rate in medians.items()},
                "predicted": {str(replicas): round(rate, 1) for replicas, rate in predicted.items()},
                "measured_to_predicted": {
                    str(replicas): round(medians[replicas] / predicted[replicas], 4) for replicas in _REPLICAS
                },
                "runs": {str(replicas): each for replicas, each in rates.items()},
            }
    return found


def in_words(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}" if seconds >= 20 * size else f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def table(figures: Figures) -> list[str]:
    lines = [
        f"| replicas | servers | rows/s | {' | '.join(_JOBS)} "
        "| full first | busy: replicas, servers, database, network |",
        f"|---|---|---|{'---|' * len(_JOBS)}---|---|",
    ]
    for replicas, servers in ((1, 1), (10, 1), (100, 1), (1_000, 1), (1_000, 2), (1_000, 4)):
        flow = simulate(figures, replicas, servers)
        times = [in_words(job_seconds(figures, flow, rows, servers)) for rows in _JOBS.values()]
        busy = ", ".join(f"{share:.0%}" for share in (flow.replicas, flow.servers, flow.database, flow.network))
        lines.append(f"| {replicas:,} | {servers} | {flow.rate:,.0f} | {' | '.join(times)} | {flow.limit} | {busy} |")
    return lines


def write_table(lines: list[str]) -> None:
    text = _DOCUMENT.read_text()
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    _DOCUMENT.write_text(f"{before}{_BEGIN}\n{chr(10).join(lines)}\n\n{_END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", help="of PostgreSQL, with nothing of Gristmill's in it")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run with replicas, about")
    parser.add_argument("--receipt", default="capacity")
    parser.add_argument("--table-only", action="store_true", help="write the table from the figures as they are")
    arguments = parser.parse_args()
    figures = Figures(_REPLICA_RATE)
    lines = table(figures)
    if not arguments.table_only:
        with tempfile.TemporaryDirectory() as folder:
            stored = {"SQLite": commits(f"sqlite:///{folder}/commits.db", arguments.runs)}
        if arguments.database is not None:
            stored["PostgreSQL"] = commits(arguments.database, arguments.runs)
        print(json.dumps(stored), flush=True)
        content = {
            "commits": stored,
            "payload_bytes": _PAYLOAD,
            "scaling": scaling(arguments.runs, arguments.seconds),
            "figures": figures._asdict(),
            "table": lines,
        }
        path = receipt.write(arguments.receipt, content, ("ray", "sqlalchemy", "msgspec"))
        worst = max(
            (
                abs(ratio - 1)
                for kind in content["scaling"].values()
                for ratio in kind["measured_to_predicted"].values()
            ),
            default=0.0,
        )
        if (measured := stored.get("PostgreSQL")) is not None:
            took = f"store_group {measured['transaction_ms'] / 1000:.6f}, store_row {measured['row_us'] / 1e6:.8f}"
            print(f"of PostgreSQL, for Figures in planning/capacity.py: {took}")
        print(f"within {worst:.1%} of the prediction; receipt: {path.name}")
    write_table(lines)


if __name__ == "__main__":
    main()
