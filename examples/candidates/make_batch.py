"""Turn a rubric, examples and a table into a batch input file: one request a candidate, the shared part first.

python examples/candidates/make_batch.py OUTPUT.jsonl [MODEL]
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    output = Path(sys.argv[1])
    model = sys.argv[2] if len(sys.argv) > 2 else "smollm2-135m-instruct"
    # What all candidates share comes first and is the same to the letter: it is computed once.
    shared = [{"role": "system", "content": (HERE / "rubric.txt").read_text()}]
    with (HERE / "examples.csv").open(newline="") as examples:
        for example in csv.DictReader(examples):
            shared.append({"role": "user", "content": f"Candidate: {example['summary']}"})
            shared.append({"role": "assistant", "content": f"Score: {example['score']}"})
    with (HERE / "candidates.csv").open(newline="") as table, output.open("w") as file:
        for row in csv.DictReader(table):
            messages = [*shared, {"role": "user", "content": f"Candidate: {row['summary']}"}]
            body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 8}
            line = {"custom_id": row["id"], "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
