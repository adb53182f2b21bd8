"""Which endpoints a server has, found out by asking each of them at the start; the decision is pure.

A path that a server does not have is a 404 or 405; llama.cpp answers 501 for what it was not started for. vLLM mounts
only the paths of its model's task. SGLang, and vLLM before, mount all of them, and say of one that it is nothing for
the model; LM Studio answers 200 with an error. So where an answer costs little, the question is a valid one; where it
would be generated, it is not, and a refusal of the body shows that the path is there. Sources: llama.cpp's
``tools/server`` (b11434, also tried), vLLM's ``entrypoints`` (0.32), SGLang's ``tokenizer_manager``.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from gristmill.wire.paths import CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS, RERANK, RESPONSES, SCORE

#: What is asked of each, besides the model.
_QUESTIONS: dict[str, dict[str, Any]] = {
    CHAT: {},
    COMPLETIONS: {},
    RESPONSES: {},
    EMBEDDINGS: {"input": "water"},
    # vLLM's shape; SGLang refuses it for what is missing.
    SCORE: {"text_1": "water", "text_2": "wet"},
    RERANK: {"query": "water", "documents": ["wet"]},
    MODERATIONS: {"input": "water"},
}
PATHS = tuple(_QUESTIONS)

_HAS_NOT = frozenset({401, 403, 404, 405, 501})
_NOTHING_FOR_THE_MODEL = re.compile(
    r"does not (appear to be|support)|is not supported|not (an embedding|a rerank)", re.I
)


class _Complaint(msgspec.Struct):
    error: Any = None


_complaint_decoder = msgspec.json.Decoder(_Complaint)


def question(path: str, model: str) -> bytes:
    """The body to send."""
    return msgspec.json.encode({"model": model, **_QUESTIONS[path]})


def is_served(status: int, answer: bytes) -> bool:
    """What the answer to the question says."""
    if status in _HAS_NOT:
        return False
    if status == 200:
        try:
            return _complaint_decoder.decode(answer).error is None
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
    return not _NOTHING_FOR_THE_MODEL.search(answer.decode("utf-8", "replace"))
