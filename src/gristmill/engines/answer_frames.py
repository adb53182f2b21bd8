"""Answers as messages from another process that gives them."""

from __future__ import annotations

import msgspec

from gristmill.engines.protocol import ChoiceDelta, Completion, Embeddings, LabelScores


class Decoded(msgspec.Struct, tag=True, frozen=True):
    id: int
    delta: ChoiceDelta


class Done(msgspec.Struct, tag=True, frozen=True):
    id: int
    completion: Completion


class Scored(msgspec.Struct, tag=True, frozen=True):
    id: int
    scores: LabelScores


class Embedded(msgspec.Struct, tag=True, frozen=True):
    id: int
    embeddings: Embeddings
