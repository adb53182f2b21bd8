"""What the same bits cost: rows a second of this tree and of another revision, in turns."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import receipt

TREE = Path(__file__).resolve().parents[2]


def cost(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "tree"
        git = ["git", "-C", str(TREE), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", str(other), options.cost], check=True)
        try:
            processes = {name: _serving(tree) for name, tree in (("this", TREE), (options.cost, other))}
            rates: dict[str, list[float]] = {name: [] for name in processes}
            for run in range(options.runs + 1):
                # Now one goes first, now the other.
                for name in list(processes)[:: 1 if run % 2 else -1]:
                    rate = _ask(processes[name], 10_000 * (run + 1), options.rows)
                    # The first is for warming up.
                    if run:
                        rates[name].append(round(rate, 3))
                print({name: each[-1:] for name, each in rates.items()}, flush=True)
            for process in processes.values():
                assert process.stdin
                process.stdin.close()
                process.wait()
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=False)
    ratios = [mine / theirs for mine, theirs in zip(*rates.values(), strict=True)]
    content = {
        "engine": options.engine, "model": options.model, "rows": options.rows, "rows_per_second": rates,
        "ratios": [round(each, 3) for each in ratios], "median_ratio": round(statistics.median(ratios), 3),
    }  # fmt: skip
    print(json.dumps(content, indent=1))
    if options.receipt:
        print(receipt.write(options.receipt, content, ("openvino",)))


def _serving(tree: Path) -> subprocess.Popen[str]:
    # This file asks both trees: what differs is what they import.
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("__main__.py")), "--serve", *sys.argv[1:]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout
    while (line := process.stdout.readline()) != "ready\n":
        assert line, "the engine's process has died"
    return process


def _ask(process: subprocess.Popen[str], first: int, rows: int) -> float:
    assert process.stdin and process.stdout
    print(first, first + rows, file=process.stdin, flush=True)
    return float(process.stdout.readline())
