"""What a ranking has come to, for the page of its job."""

from __future__ import annotations

import msgspec


class Step(msgspec.Struct):
    """What is being done, in a sentence. Rows ``judged`` before, and those that this step ``asks`` about; its batches
    are those of the job from number ``since`` on."""

    told: str
    judged: int
    asks: int
    since: int = 0


class PlanLine(msgspec.Struct):
    """About so many ``rows``, ``seconds`` and ``tokens``; ``done``: it is not done again."""

    name: str
    rows: int
    seconds: float
    tokens: float
    done: bool = False


class PlanSummary(msgspec.Struct):
    """``everything``, for comparison: judging every row."""

    steps: list[PlanLine]
    everything: PlanLine
    sentences: list[str]


class BestRow(msgspec.Struct):
    """``found``: how it was come by; ``score`` None where it was not judged."""

    id: str
    score: float | None
    found: str


class RankSummary(msgspec.Struct):
    """The certificate's sentences, as the report has them; ``returned``: rows of the list, of which the first are
    ``listed``."""

    certified: bool
    headline: str
    promised: list[str]
    assumed: list[str]
    not_promised: list[str]
    truth: list[str]
    cost: list[str]
    returned: int
    listed: list[BestRow]
