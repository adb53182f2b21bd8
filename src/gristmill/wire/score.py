"""``/v1/score``: how probable each of a few labels is after a prompt. SGLang's shape, with two additions.

SGLang takes labels as single token ids (``label_token_ids``); here they may also be texts of any length (``labels``),
and the prompt may be chat messages (``messages``), which go through the model's chat template.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from gristmill.wire.chat import Message
from gristmill.wire.common import CompletionUsage

Labels = Annotated[list[str], msgspec.Meta(min_length=1, max_length=1000)]
LabelTokenIds = Annotated[
    list[Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]], msgspec.Meta(min_length=1, max_length=1000)
]


class ScoreRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The prompt is ``messages``, or ``query`` with each of ``items`` after it (before it with ``item_first``)."""

    model: str
    query: str | None = None
    items: str | list[Any] | None = None
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)] | None = None
    labels: Labels | None = None
    label_token_ids: LabelTokenIds | None = None
    # Of ``messages``, as in a chat completion.
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    apply_softmax: bool = False
    item_first: bool = False


class ScoreResponse(msgspec.Struct):
    """``scores`` has a list for each item, in the order of the labels: probabilities, or with ``apply_softmax``
    shares of the labels' joint probability."""

    scores: list[list[float]]
    model: str
    usage: CompletionUsage
    object: str = "scoring"
