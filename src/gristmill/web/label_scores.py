"""Label scores as pages show them: how one row's probability is spread, and how those of all rows are. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gristmill.batches.results.row_view import RowView
from gristmill.batches.results.tally import LabelSpread
from gristmill.html_page import short
from gristmill.web.bars import Bars, bars

#: Labels named where there is little room.
_IN_A_LINE = 3


class LabelShare(NamedTuple):
    label: str
    share: str


class Distribution(NamedTuple):
    """Of one item of a row."""

    picture: Bars
    labels: list[LabelShare]


class LabelLine(NamedTuple):
    """``chosen``: rows whose most probable label it is; ``mean``: its mean probability."""

    label: str
    chosen: int
    mean: str


class CertaintyLine(NamedTuple):
    between: str
    items: int


class SpreadView(NamedTuple):
    items: int
    by_label: Bars
    labels: list[LabelLine]
    by_certainty: Bars
    certainty: list[CertaintyLine]


def labels_of(body: dict[str, Any] | None, defaults: dict[str, Any] | None) -> list[str] | None:
    """Their names, in the order of the scores; None where they are not told."""
    for given in (body, defaults):
        labels = (given or {}).get("labels")
        if isinstance(labels, list) and labels:
            return [str(each).strip() or repr(each) for each in labels]
        tokens = (given or {}).get("label_token_ids")
        if isinstance(tokens, list) and tokens:
            return [f"token {each}" for each in tokens]
    return None


def distribution(row: RowView, labels: Sequence[str] | None) -> list[Distribution]:
    found = []
    for item in row.probabilities or ():
        names = _names(labels, len(item))
        shares = [LabelShare(name, f"{100 * share:.2f} %") for name, share in zip(names, item, strict=True)]
        drawn = [(each.label, share, f"{each.label}: {each.share}") for each, share in zip(shares, item, strict=True)]
        found.append(Distribution(bars(f"The probability of each label of {row.custom_id}", drawn), shares))
    return found


def told_shares(row: RowView, labels: Sequence[str] | None) -> str:
    """In a line: the most probable labels of a row's first item."""
    item = (row.probabilities or [[]])[0]
    best = sorted(zip(item, _names(labels, len(item)), strict=True), reverse=True)[:_IN_A_LINE]
    return ", ".join(f"{name} {100 * share:.0f} %" for share, name in best)


def spread_view(spread: LabelSpread, labels: Sequence[str] | None) -> SpreadView:
    names = _names(labels, len(spread.mass))
    lines = [
        LabelLine(name, chosen, short(mass / max(spread.items, 1)))
        for name, chosen, mass in zip(names, spread.chosen, spread.mass, strict=True)
    ]
    step = 100 // len(spread.certainty)
    certainty = [CertaintyLine(f"{n * step}–{(n + 1) * step} %", items) for n, items in enumerate(spread.certainty)]
    return SpreadView(
        spread.items,
        bars(
            "How many rows have each label as their most probable one",
            [(each.label, each.chosen, f"{each.label}: {each.chosen:,} rows") for each in lines],
        ),
        lines,
        bars(
            "How many rows are how sure of their most probable label",
            [(f"{n * step}", each.items, f"{each.between}: {each.items:,} rows") for n, each in enumerate(certainty)],
        ),
        certainty,
    )


def _names(labels: Sequence[str] | None, count: int) -> list[str]:
    """Labels that do not fit the scores would name the wrong ones."""
    return list(labels) if labels is not None and len(labels) == count else [f"label {n + 1}" for n in range(count)]
