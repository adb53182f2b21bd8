"""What the same bits cost: rows a second of this tree and of another revision, or without an option, in turns."""

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
    if "=" in options.cost:
        name = f"without {options.cost}"
        _compare(options, {options.cost: _serving(TREE, "-O", options.cost), name: _serving(TREE)})
        return
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "tree"
        git = ["git", "-C", str(TREE), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", str(other), options.cost], check=True)
        try:
            _compare(options, {"this": _serving(TREE), options.cost: _serving(other)})
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=False)


def _compare(options: argparse.Namespace, processes: dict[str, subprocess.Popen[str]]) -> None:
    rates: dict[str, list[float]] = {name: [] for name in processes}
    processor_rates: dict[str, list[float]] = {name: [] for name in processes}
    for run in range(options.runs + 1):
        # Now one goes first, now the other.
        for name in list(processes)[:: 1 if run % 2 else -1]:
            rate, processor_rate = _ask(processes[name], 10_000 * (run + 1), options.rows)
            # The first is for warming up.
            if run:
                rates[name].append(round(rate, 3))
                processor_rates[name].append(round(processor_rate, 3))
        print({name: each[-1:] for name, each in rates.items()}, processor_rates, flush=True)
    for process in processes.values():
        assert process.stdin
        process.stdin.close()
        process.wait()
    ratios, processor_ratios = _ratios(rates), _ratios(processor_rates)
    content = {
        "engine": options.engine, "model": options.model, "rows": options.rows, "beside_other_work": options.busy,
        "rubric_lines": options.rubric_lines, "words_a_row": [5, options.words],
        "rows_per_second": rates, "ratios": ratios, "median_ratio": round(statistics.median(ratios), 3),
        "rows_per_processor_second": processor_rates, "processor_ratios": processor_ratios,
        "median_processor_ratio": round(statistics.median(processor_ratios), 3),
    }  # fmt: skip
    print(json.dumps(content, indent=1))
    if options.receipt:
        packages = ("openvino",) if options.engine == "openvino" else ("xllamacpp",)
        print(receipt.write(options.receipt, content, packages))


def _ratios(rates: dict[str, list[float]]) -> list[float]:
    """Of the first to the second, run by run."""
    return [round(mine / theirs, 3) for mine, theirs in zip(*rates.values(), strict=True)]


def _serving(tree: Path, *arguments: str) -> subprocess.Popen[str]:
    # This file asks both trees: what differs is what they import.
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("__main__.py")), "--serve", *sys.argv[1:], *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout
    while (line := process.stdout.readline()) != "ready\n":
        assert line, "the engine's process has died"
    return process


def _ask(process: subprocess.Popen[str], first: int, rows: int) -> tuple[float, float]:
    """Rows a second, and rows a second of processor time."""
    assert process.stdin and process.stdout
    print(first, first + rows, file=process.stdin, flush=True)
    rate, processor_rate = process.stdout.readline().split()
    return float(rate), float(processor_rate)
