"""The page of a comparison of two models' scores. Pure."""

from __future__ import annotations

from typing import Any

from gristmill.html_page import render, short
from gristmill.scoring.compare import Comparison
from gristmill.scoring.comparison import ScoreComparison
from gristmill.scoring.comparison_words import cut_told, measures, rows_told, side_told, sides
from gristmill.scoring.scale import Scale
from gristmill.scoring.spent import spent_on

#: Rows that are listed, and that are drawn: of more, nothing could be told apart.
_LISTED, _DRAWN = 20, 2000
#: Of the drawing, in its own units.
_SIDE, _MARGIN = 320.0, 34.0


def comparison_page(table: str, made_at: str, found: Comparison) -> str:
    """As HTML."""
    return render(
        "scoring/comparison.html.jinja",
        table=table,
        made_at=made_at,
        rows=found.rows,
        of=found.of,
        a=side_told(found.a),
        b=side_told(found.b),
        notes=sides(found)[2:],
        scale=found.instrument.scale.text,
        rubric=found.instrument.rubric,
        scores=[_view(each, found.instrument.scale) for each in found.scores],
        spent=[(name, spent_on(side.batches)) for name, side in (("A", found.a), ("B", found.b))],
    )


def _view(score: ScoreComparison, scale: Scale) -> dict[str, Any]:
    return {
        "name": score.name,
        "rows": rows_told(score),
        "measures": measures(score),
        "cut": cut_told(score.at_cut) if score.at_cut is not None else None,
        "changed": [each for each in score.changes[:_LISTED] if each.a != each.b],
        "drawn": _drawing(score, scale),
    }


def _drawing(score: ScoreComparison, scale: Scale) -> dict[str, Any]:
    """A point a row: A's score across, B's up."""
    least, most = scale.values[0], scale.values[-1]

    def place(value: float) -> float:
        return _MARGIN + (_SIDE - 2 * _MARGIN) * (value - least) / (most - least)

    points = [
        {
            "x": round(place(each.a), 1),
            "y": round(_SIDE - place(each.b), 1),
            "text": f"{each.id}: A {short(each.a)}, B {short(each.b)}",
        }
        for each in score.changes[:_DRAWN]
    ]
    ends = [{"at": round(place(value), 1), "text": short(value)} for value in (least, (least + most) / 2, most)]
    return {"side": _SIDE, "margin": _MARGIN, "points": points, "ticks": ends}
