"""A batch file like the job Gristmill exists for: one rubric of about 1,700 tokens, a candidate of about 45 a row.

python benchmarks/rows.py 1000 --model MODEL [--max-tokens 4] > rows.jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "embedded"))
import workload

ASKED = "\nReply with the score only, a whole number from 0 to 10."


def line(row: int, model: str, max_tokens: int, shared: str) -> str:
    messages = [
        {"role": "system", "content": shared},
        {"role": "user", "content": workload.candidate(row) + ASKED},
    ]
    body = {"model": model, "messages": messages, "max_completion_tokens": max_tokens, "temperature": 0}
    request = {"custom_id": f"candidate-{row}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", type=int)
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-tokens", type=int, default=4)
    options = parser.parse_args()
    shared = workload.rubric()
    for row in range(options.rows):
        print(line(row, options.model, options.max_tokens, shared))


if __name__ == "__main__":
    main()
