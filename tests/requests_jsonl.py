"""Making input files for tests."""

from __future__ import annotations

import json
from typing import Any

CHAT = "/v1/chat/completions"


def chat_line(custom_id: str, text: str | None = None, **body: Any) -> dict[str, Any]:
    """One request line; ``body`` overrides or adds parameters."""
    message = {"role": "user", "content": text or f"Rate candidate {custom_id}."}
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": CHAT,
        "body": {"model": "simulated", "messages": [message], "max_tokens": 8} | body,
    }


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def chat_file(rows: int) -> bytes:
    return jsonl([chat_line(f"row-{index}") for index in range(rows)])
