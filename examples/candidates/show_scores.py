"""Read a batch's output file and show the candidates by score.

python examples/candidates/show_scores.py OUTPUT.jsonl
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent


def score_of(answer: str) -> int | None:
    """The first whole number from 0 to 10 in the answer."""
    found = re.search(r"\b(10|[0-9])\b", answer)
    return int(found[1]) if found else None


def main() -> None:
    with (HERE / "candidates.csv").open(newline="") as table:
        summaries = {row["id"]: row["summary"] for row in csv.DictReader(table)}
    scores = {}
    for line in Path(sys.argv[1]).read_text().splitlines():
        result = json.loads(line)
        scores[result["custom_id"]] = score_of(result["response"]["body"]["choices"][0]["message"]["content"])
    scored = {candidate: score for candidate, score in scores.items() if score is not None}
    print(f"{len(scored)} of {len(summaries)} candidates have a score. The first ten by score:\n")
    for candidate in sorted(scored, key=lambda each: (-scored[each], each))[:10]:
        print(f"  {scored[candidate]:>2}  {candidate}  {summaries[candidate][:80]}...")
    counts = Counter(scored.values())
    print("\nHow often each score was given: " + ", ".join(f"{s}: {counts[s]}x" for s in sorted(counts)))
    if unclear := [candidate for candidate, score in scores.items() if score is None]:
        print(f"No number in the answer: {', '.join(unclear)}")


if __name__ == "__main__":
    main()
