"""What float32 says comes after the prompts (``reference.py`` wrote it), and how far from it others are."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMOLLM2 = "smollm2-135m-instruct"
GEMMA3 = "gemma3-270m"
#: Tokens from which on a prompt is one of those with a rubric.
LONG = 1000
_FOLDER = Path(__file__).resolve().parents[2] / "tests" / "engines" / "embedded" / "accuracy"


def path_of(model: str) -> Path:
    return _FOLDER / f"{model}.json"


def read(model: str) -> list[dict[str, Any]]:
    """Cases: ``prompt`` (token ids), and for each reference the ``ids`` of its 20 most probable next tokens and their
    ``logprobs``."""
    cases: list[dict[str, Any]] = json.loads(path_of(model).read_text())
    return cases


def difference(logits: NDArray[np.float32], expected: dict[str, Any]) -> float:
    """The largest, over the reference's most probable tokens. ``logits``, shape (vocabulary,)."""
    exact = logits.astype(np.float64)
    return float(np.abs(exact[expected["ids"]] - np.logaddexp.reduce(exact) - expected["logprobs"]).max())


def summary(differences: list[float]) -> dict[str, float]:
    return {"largest": round(max(differences), 6), "median": round(statistics.median(differences), 6)}
