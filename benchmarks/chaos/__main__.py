"""A batch while everything that it stands on is killed and stopped, by many schedules: what came of its rows.

    python benchmarks/chaos [--seed 1] [--runs 5] [--rows 10000] [--folder FOLDER]

Each run has two servers on one PostgreSQL and one bucket, and four replicas on a Ray cluster of three nodes, all of
them processes of this machine. The seed decides what is done to which of them, and at how many rows with a result;
which rows are in flight at that moment, and how long things take, it does not decide. The receipt has counts, no times.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
import receipt

from chaos.run import Outcome, play


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next has the next")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=None, help="where what a run leaves is kept")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    for seed in range(options.seed, options.seed + options.runs):
        began = time.monotonic()

        def tell(what: str, began: float = began) -> None:
            print(f"  {time.monotonic() - began:6.1f} s  {what}", flush=True)

        print(f"seed {seed}", flush=True)
        folder = options.folder and options.folder / str(seed)
        with tempfile.TemporaryDirectory() as scratch:
            outcomes.append(play(seed, options.rows, _made(folder or Path(scratch)), tell))
        print(f"  {outcomes[-1].faults() or 'as it must be'}", flush=True)
        # After each, as many take long.
        content = {
            "rows": options.rows,
            "faults": sum(bool(each.faults()) for each in outcomes),
            "runs": [msgspec.to_builtins(each) for each in outcomes],
        }
        path = receipt.write("chaos", content, ("ray", "psycopg", "obstore"))
        print(f"{len(outcomes)} runs, {content['faults']} with faults; receipt: {path.name}", flush=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
