"""How well embeddings guess the scores of rows that are not in the pilot, and how well the words of the rows do.

python benchmarks/embedding_proxy sentences|words|candidates [--pilots 5]

Three tables: 3,000 sentences of reviews that people labelled good or bad, 3,000 words that people rated from abstract
to concrete, and 2,000 invented candidates with the points that their text was made from. Each is embedded once by
all-MiniLM-L6-v2 on the llama.cpp engine; then seeded pilots teach both proxies, and Spearman's rank correlation with
the scores of all other rows is told.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import receipt
from minilm import PACKAGE, write_minilm
from packaged_texts import LICENCES, labelled_sentences, ratings

import gristmill
from gristmill.scoring.frames import backend_on
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.scoring.rank.ridge import Ridge
from gristmill.scoring.rank.row_vectors import RowVectors
from gristmill.scoring.rank.text_proxy import train_text_proxy
from gristmill.scoring.scale import of_numbers
from gristmill.scoring.spearman import spearman

CANDIDATES = Path(__file__).resolve().parents[2] / "examples" / "candidates" / "make_sample.py"
PILOTS = (256, 1_000)
JUDGE = gristmill.EngineSettings("simulated")

Rows = list[tuple[str, float]]


def sentences() -> Rows:
    return [(text, label) for text, label, _ in labelled_sentences()]


def words() -> Rows:
    return random.Random(1).sample(sorted(ratings("concreteness_ratings", "Brysbaert").items()), 3_000)


def candidates() -> Rows:
    made = subprocess.run([sys.executable, str(CANDIDATES), "2000"], capture_output=True, text=True, check=True)
    hidden = ("id", "points")
    return [
        ("\n".join(f"{name}: {value}" for name, value in row.items() if name not in hidden), float(row["points"]))
        for row in csv.DictReader(io.StringIO(made.stdout))
    ]


TABLES: dict[str, Callable[[], Rows]] = {"sentences": sentences, "words": words, "candidates": candidates}


def embedded(texts: list[str], model: Path) -> Any:
    """The vectors as the proxy gets them."""
    options = gristmill.ScoreOptions(row="{{ text }}")
    asked = Questionnaire(pl.DataFrame({"text": texts}), "Score.", of_numbers(range(11)), options, backend_on(JUDGE))
    backend = backend_on(gristmill.EngineSettings("llama_cpp", str(model)))
    with tempfile.TemporaryDirectory() as folder, backend.session():
        vectors = RowVectors(Path(folder), backend, asked)
        vectors.ask("all", range(len(texts)))
        found = {row: vector for row, vector, _ in vectors.read("all")}
    assert len(found) == len(texts), vectors.error
    return np.array([found[row] for row in range(len(texts))], float)


def by_words(texts: list[str], scores: Any, pilot: Any, others: Any) -> Any:
    proxy = train_text_proxy([texts[row] for row in pilot], scores[pilot])
    return proxy.guesses((texts[row] for row in others), len(others))


def by_embeddings(vectors: Any, scores: Any, pilot: Any, others: Any) -> Any:
    known = vectors[pilot]
    weights, intercept = Ridge.through(known @ known.T, scores[pilot]).line(known, scores[pilot])
    return vectors[others] @ weights + intercept


def compared(texts: list[str], scores: Any, vectors: Any, size: int, pilots: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {"features": [], "embeddings": []}
    for seed in range(pilots):
        rows = np.random.default_rng(seed).permutation(len(texts))
        pilot, others = rows[:size], rows[size:]
        for name, guesses in (
            ("features", by_words(texts, scores, pilot, others)),
            ("embeddings", by_embeddings(vectors, scores, pilot, others)),
        ):
            found[name].append(spearman(guesses, scores[others]) or 0.0)
    told: dict[str, Any] = {"pilot": size, "others": len(texts) - size}
    for name, each in found.items():
        told[name] = {"mean": round(float(np.mean(each)), 3), "least": round(min(each), 3), "most": round(max(each), 3)}
    told["embeddings_better_in"] = sum(e > f for e, f in zip(found["embeddings"], found["features"], strict=True))
    return told


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--pilots", type=int, default=5)
    parser.add_argument("--vectors", type=Path, help="Keep the vectors in this file, or take them from there.")
    options = parser.parse_args()
    rows = TABLES[options.table]()
    texts, scores = [text for text, _ in rows], np.array([score for _, score in rows])
    with tempfile.TemporaryDirectory() as folder:
        kept = options.vectors or Path(folder) / "vectors.npy"
        if not kept.exists():
            np.save(kept, embedded(texts, write_minilm(Path(folder) / "all-minilm-l6-v2.gguf")))
        vectors = np.load(kept)
    content = {
        "model": f"all-MiniLM-L6-v2 (Apache 2.0), from PyPI: {PACKAGE}",
        "texts": LICENCES,
        "rows": len(texts),
        "pilots": options.pilots,
        "spearman": [compared(texts, scores, vectors, size, options.pilots) for size in PILOTS],
    }
    packages = ("numpy", "scikit-learn", "xllamacpp")
    print(receipt.write(f"embedding-proxy-{options.table}", content, packages).read_text())


if __name__ == "__main__":
    main()
