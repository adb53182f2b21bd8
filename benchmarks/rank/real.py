"""``gristmill rank`` with real models: SmolLM2 135M as the proxy of Gemma 3 270M, checked against the judge's scores of
all rows.

python benchmarks/rank/real.py [--rows 2000] [--top 100] [--recall 0.9]

Both models must have been pulled. Gemma 3 270M is a base model: a copy of its file gets a plain chat template.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import receipt

from gristmill.models.cache import cache_folder
from gristmill.models.locate import locate

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "candidates"
ENVIRONMENT = os.environ | {"GRISTMILL_CACHE": str(cache_folder())}
RUBRIC = """You screen applications for a maintenance technician at a grain mill. Score each candidate from 0 to 10.
Experience with production machines counts up to 3 points, and more in mills and other bulk material plants;
electrical and control skills up to 2; mechanical skills up to 2; safety up to 2; shifts that are accepted 1.
Say nothing but the score."""
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}"
    "{% if not loop.last or message.role != 'assistant' %}\n\n{% endif %}{% endfor %}"
)


def run(name: str, folder: Path, *arguments: str) -> str:
    """What it said."""
    command = [sys.executable, "-m", "gristmill", name, "table.csv", "--rubric", "rubric.txt", "--id", "id"]
    command += ["--scale", "0..10", "--engine", "openvino", "--method", "labels", "--most-off-scale", "1"]
    command += ["--examples", str(EXAMPLES / "examples.csv"), "--truth", "points", "--reuse-answers", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ENVIRONMENT | {"HOME": str(folder)})
    print(done.stderr, flush=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ranked(folder: Path, judge: str, options: argparse.Namespace, *assume: str) -> dict[str, Any]:
    name = f"best{len(assume)}"
    wish = ("--top", str(options.top), "--recall", str(options.recall), "--seed", "1", *assume)
    out = run(
        "rank", folder, "--judge", judge, "--proxy", options.proxy, *wish, "-o", f"{name}.parquet", "--json",
        "--report", f"{name}.html",
    )  # fmt: skip
    if options.keep:
        (options.keep / f"{name}.html").write_text((folder / f"{name}.html").read_text())
    told = json.loads(out)
    kept = (
        "certified", "basis", "recall", "confidence", "judged", "judged_by_step", "audited", "audit_hits", "may_miss",
        "assumption_free_recall", "proxy_rank_correlation", "promised", "assumed",
    )  # fmt: skip
    return {name: told[name] for name in kept} | {"file": name}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--top", type=int, default=100)
    parser.add_argument("--recall", type=float, default=0.9)
    parser.add_argument("--proxy", default="smollm2-135m-instruct")
    parser.add_argument("--keep", type=Path, help="Put the pages into this folder.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rubric.txt").write_text(RUBRIC)
        sample = subprocess.run(
            [sys.executable, str(EXAMPLES / "make_sample.py"), str(options.rows)], capture_output=True, text=True
        )
        (folder / "table.csv").write_text(sample.stdout)
        judge = folder / "gemma3-270m.gguf"
        given = subprocess.run(
            [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--chat-template", TEMPLATE, "--force",
             str(locate("gemma3-270m").path), str(judge)],
            capture_output=True, text=True,
        )  # fmt: skip
        assert given.returncode == 0, given.stderr
        runs = [ranked(folder, str(judge), options, "--assume", "thinning"), ranked(folder, str(judge), options)]
        run("score", folder, "--model", str(judge), "-o", "all.parquet")
        scored = pl.read_parquet(folder / "all.parquet").sort("score", descending=True, maintain_order=True)
        right = set(scored["id"][: options.top])
        for each in runs:
            best = pl.read_parquet(folder / f"{each.pop('file')}.parquet")
            each["of_the_judges_best"] = len(right & set(best["id"]))
    models = {"judge": "gemma3-270m", "proxy": options.proxy}
    content = {"rows": options.rows, "top": options.top} | models | {"runs": runs}
    print(receipt.write("rank-real", content, ("polars", "scikit-learn", "openvino")).name)


if __name__ == "__main__":
    main()
