"""The paths of the API's endpoints that engines answer, from a JSON body to a JSON body."""

from __future__ import annotations

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
SCORE = "/v1/score"
RERANK = "/v1/rerank"
MODERATIONS = "/v1/moderations"

#: The field of a body that may be too long.
PROMPT_FIELDS = {
    CHAT: "messages", COMPLETIONS: "prompt", RESPONSES: "input", EMBEDDINGS: "input", RERANK: "documents",
}  # fmt: skip
