"""The workload of the embedded engine's benchmarks: one rubric of about 1,700 tokens, about 45 varying tokens a row."""

from __future__ import annotations

import random
from collections.abc import Callable

_WORDS = [
    "the",
    "candidate",
    "shows",
    "evidence",
    "of",
    "clear",
    "written",
    "communication",
    "and",
    "careful",
    "reasoning",
    "about",
    "systems",
    "under",
    "load",
    "with",
    "tests",
    "that",
    "prove",
    "each",
    "claim",
    "and",
    "honest",
    "measurement",
    "of",
    "cost",
    "risk",
    "time",
    "quality",
    "scope",
    "team",
    "delivery",
    "support",
    "design",
    "review",
]


def rubric(seed: int = 7) -> str:
    chosen = random.Random(seed)
    lines = [f"- {' '.join(chosen.choice(_WORDS) for _ in range(22))}." for _ in range(66)]
    return "You are a strict grader. Score each candidate from 0 to 10 by the rubric below.\n" + "\n".join(lines)


def candidate(row: int) -> str:
    chosen = random.Random(1000 + row)
    return "Candidate: " + " ".join(chosen.choice(_WORDS) for _ in range(36))


def chat_prompt(row: int, shared: str) -> str:
    """The row as SmolLM2's chat template renders it."""
    return (
        f"<|im_start|>system\n{shared}<|im_end|>\n<|im_start|>user\n{candidate(row)}<|im_end|>\n<|im_start|>assistant\n"
    )


def plain_prompt(row: int, shared: str) -> str:
    """The row for a model that knows no chat."""
    return f"{shared}\n\n{candidate(row)}\nScore:"


def prompt_of(model: str) -> Callable[[int, str], str]:
    """Of the catalog: SmolLM2 knows chats, Gemma 3 270M is a base model."""
    return chat_prompt if model.startswith("smollm2") else plain_prompt
