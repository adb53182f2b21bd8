"""``kill -9`` at random moments of a ranking, over and over: certificate and output are those of one left alone.

python benchmarks/rank/kills.py [--rankings 5] [--kills 8]

On the simulated engine, whose scores go with a number in the row. Each ranking has another seed; in each, the command
is killed at a random moment ``--kills`` times, then left to end. Kills are told by the step they hit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import receipt

ROWS = 1_500
#: Of the judge, in these rankings, at least.
_GROUPS = 4


class Kept:
    """A folder with a table and a rubric."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        draw = random.Random(seed)
        lines = [f"{row:04},{draw.random():.8f}" for row in range(ROWS)]
        (folder / "table.csv").write_text("\n".join(["id,worth", *lines]) + "\n")
        (folder / "rubric.md").write_text("Score the miller.\n")

    def start(self) -> subprocess.Popen[bytes]:
        words = ["rank", "table.csv", "--rubric", "rubric.md", "--id", "id", "--scale", "0..10", "--top", "150"]
        words += ["--recall", "0.7", "--seed", str(self._seed), "--proxy", "small", "-o", "best.csv"]
        engine = ["--engine", "simulated", "-O", "scored_by=worth:", "-O", "journal=journal", "-O", "latency=0.03"]
        command = [sys.executable, "-m", "gristmill", *words, *engine]
        environment = os.environ | {"HOME": str(self._folder)}
        return subprocess.Popen(command, cwd=self._folder, env=environment, stderr=subprocess.DEVNULL)

    def finished(self) -> tuple[bytes, object, int]:
        """Output, certificate without what it took, rows asked."""
        assert self.start().wait() == 0
        certificate = json.loads((self._folder / "best.csv.certificate.json").read_text())
        certificate.pop("cost")
        return (self._folder / "best.csv").read_bytes(), certificate, self.asked()

    def asked(self) -> int:
        journal = self._folder / "journal"
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def groups(self) -> int:
        """That the judge has been asked, or is."""
        return len(list((self._folder / ".best.csv.gristmill" / "judge").glob("*")))

    def step(self) -> str:
        folder, steps = self._folder / ".best.csv.gristmill", self.groups()
        if not steps:
            return "proxy, of all rows" if (folder / "proxy").exists() else "before the first row"
        return "pilot" if steps == 1 else f"step {steps} of the course"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rankings", type=int, default=5)
    parser.add_argument("--kills", type=int, default=8)
    options = parser.parse_args()
    draw = random.Random(18)
    hit: Counter[str] = Counter()
    runs = []
    for seed in range(options.rankings):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            output, certificate, rows = Kept(Path(one), seed).finished()
            disturbed = Kept(Path(other), seed)
            kills = 0
            for place in range(options.kills):
                # A third before the judge's first group, the others in its groups, one after another.
                group = max(place * 3 // 2 - options.kills // 2, 0) * _GROUPS // options.kills
                run = disturbed.start()
                while disturbed.groups() < group and run.poll() is None:
                    time.sleep(0.002)
                before, more = disturbed.asked(), draw.randrange(0, 150)
                while disturbed.asked() < before + more and disturbed.groups() <= group and run.poll() is None:
                    time.sleep(0.002)
                if run.poll() is None:
                    hit[disturbed.step()] += 1
                    run.send_signal(signal.SIGKILL)
                    kills += 1
                run.wait()
            found, told, again = disturbed.finished()
        same = {"same_output": found == output, "same_certificate": told == certificate}
        runs.append({"seed": seed, "kills": kills} | same | {"rows_asked": rows, "rows_asked_with_kills": again})
        print(runs[-1], flush=True)
    assert all(run["same_output"] and run["same_certificate"] for run in runs)
    content = {"rows": ROWS, "kills": sum(hit.values()), "kills_by_step": dict(sorted(hit.items())), "rankings": runs}
    print(receipt.write("rank-kills", content, ("polars", "scikit-learn")).name)


if __name__ == "__main__":
    main()
