"""The prompts of the accuracy check: short and long, several languages and scripts, code, digits, JSON, chat."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "embedded"))
import workload

_TEXTS = [
    "The capital of France is",
    "Once upon a time",
    "The quick brown fox jumps over the lazy",
    "Water boils at a temperature of",
    "To be, or not to be, that is the",
    "In 1969, the first humans to walk on the Moon were",
    "The opposite of hot is",
    "She opened the door and saw",
    "A",
    "\n\n",
    "La capitale de la France est",
    "Die Hauptstadt von Deutschland ist",
    "La capital de España es",
    "La capitale d'Italia è",
    "A capital de Portugal é",
    "Столица России — город",
    "日本の首都は",
    "中国的首都是",
    "عاصمة مصر هي",
    "भारत की राजधानी",
    "서울은 한국의",
    "Η πρωτεύουσα της Ελλάδας είναι η",
    "Emoji: 😀😃😄 and more 🎉",
    "naïve café — “quoted” text… ½ × ¾ ≈",
    "def fibonacci(n):\n",
    "for (int i = 0; i < 10; i++) {\n    printf(",
    "SELECT name, COUNT(*) FROM users WHERE age > 30 GROUP BY",
    "import numpy as np\n\nx = np.zeros((3, 4))\nprint(x.",
    "<html>\n<head>\n<title>Home</title>\n</head>\n<body>\n",
    "fn main() {\n    let mut numbers = vec![1, 2, 3];\n    numbers.",
    "#!/bin/sh\nset -eu\nfor file in *.txt; do\n  ",
    "2+2=",
    "1, 1, 2, 3, 5, 8, 13,",
    "3.14159265",
    "1000000007 mod 10 =",
    "The year 2024 minus 1999 equals",
    "0 1 2 3 4 5 6 7 8 9 10 11 12",
    "Phone: 555-0123, Zip: 90210, Total: $1,299.",
    '{"name": "Ada", "age": 36, "languages": ["',
    '[{"id": 1, "score": 7}, {"id": 2, "score":',
    '{"a": {"b": {"c": [1, 2, {"d": null}]}}, "e":',
    "name: build\non:\n  push:\n    branches:\n      -",
    "| city | population |\n|---|---|\n| Paris | 2,100,000 |\n| London |",
    " ".join(["again"] * 40),
    " ".join(str(number * number) for number in range(60)),
    workload.rubric(11)[:1500],
]  # fmt: skip

_CHATS = [
    [("user", "Hello, who are you?")],
    [("system", "You answer in one word."), ("user", "What colour is the sky?")],
    [("system", "Score the answer from 0 to 10."), ("user", "Question: 2+2? Answer: 5")],
    [("user", "Write a haiku."), ("assistant", "Rain on the old roof"), ("user", "Go on.")],
    [("user", "Antworte auf Deutsch: Wie heißt die Hauptstadt von Österreich?")],
    [("user", 'Return {"score": n} for this text: "great work"')],
    [("system", ""), ("user", "")],
    [("system", "You are a strict grader."), ("user", "Candidate: ten years of Rust.\n\nScore:")],
]

#: A rubric of about 1,700 tokens each; the second seed is another rubric.
_RUBRIC_ROWS = [(7, row) for row in range(8)] + [(8, row) for row in range(6)]


def prompts(chat: bool) -> list[str]:
    """``chat``: for SmolLM2, whose template is written out here; else for a model that knows no chat."""
    rows = [(row, workload.rubric(seed)) for seed, row in _RUBRIC_ROWS]
    if not chat:
        return _TEXTS + [workload.plain_prompt(row, shared) for row, shared in rows]
    chats = [
        "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in chat) + "<|im_start|>assistant\n"
        for chat in _CHATS
    ]
    return _TEXTS + chats + [workload.chat_prompt(row, shared) for row, shared in rows]
