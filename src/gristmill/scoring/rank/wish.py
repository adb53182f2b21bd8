"""What a user wants of a ranking, and the goal that it is. Pure."""

from __future__ import annotations

import msgspec

from gristmill.scoring.rank.goal import Assumption, Goal, pilot_rows
from gristmill.scoring.rank.side import Side
from gristmill.user_error import UserError

#: Rows that are compared in rounds at most; with more, telling them apart one by one is not what is wanted.
MOST_COMPARED = 1_000


class RankWish(msgspec.Struct, frozen=True):
    """What is wanted: the ``top`` rows, or those for which ``cut`` holds ("score >= 8"). See ``Goal`` for the rest.
    ``assume``: thinning, or None. ``or_all``: past the ``budget``, if it does not do, up to every row. ``rounds`` of
    comparisons among the rows found, None for none."""

    top: int | None = None
    cut: str | None = None
    recall: float = 0.95
    precision: float | None = None
    confidence: float = 0.95
    budget: int | None = None
    assume: str | None = None
    or_all: bool = False
    seed: int = 0
    rounds: int | None = None


def goal_of(wish: RankWish, rows: int, side: Side | None) -> Goal:
    """Raises UserError for what contradicts itself, or cannot be promised."""
    if (wish.top is None) == (wish.cut is None):
        raise UserError(
            "Say what is wanted, one of the two: the best rows (top 100), or all above a cut (cut 'score >= 8')."
        )
    if wish.top is not None and wish.top < 1:
        raise UserError(f"The best {wish.top} rows are none: ask for at least one.")
    if wish.top is not None and wish.top >= rows:
        raise UserError(
            f"The best {wish.top:,} of {rows:,} rows are all of them: score the table instead, which judges every row "
            "(gristmill score)."
        )
    for name, share in (("recall", wish.recall), ("confidence", wish.confidence), ("precision", wish.precision)):
        if share is not None and not 0 < share < 1:
            raise UserError(
                f"A {name} of {share:g} cannot be promised: it is a share between 0 and 1, such as 0.95. Where nothing "
                "may be missed, every row has to be judged: score the table instead (gristmill score)."
            )
    if wish.precision is not None and wish.cut is None:
        raise UserError("A precision goes with a cut: the best so many rows have all been judged.")
    if wish.assume not in (None, "thinning"):
        raise UserError(f"There is no assumption '{wish.assume}': it is thinning, or none.")
    if wish.seed < 0:
        raise UserError(f"The seed {wish.seed} is negative: take a number from 0 on.")
    if wish.rounds is not None:
        _check_rounds(wish.rounds, wish.top)
    pilot = pilot_rows(rows)
    if wish.budget is not None and wish.budget < 1:
        raise UserError(f"A budget of {wish.budget:,} rows judges none: allow for more, or leave it out.")
    if wish.budget is not None and wish.budget < pilot and not wish.or_all:
        raise UserError(
            f"A budget of {wish.budget:,} rows is less than the pilot, which judges {pilot:,} of {rows:,} rows at "
            "random: nothing could be promised. Allow for more."
        )
    return Goal(
        rows=rows,
        top=wish.top,
        cut=side.cut if side is not None else None,
        recall=wish.recall,
        precision=wish.precision,
        confidence=wish.confidence,
        budget=wish.budget if not wish.or_all else None,
        assume=Assumption.THINNING if wish.assume is not None else None,
        seed=wish.seed,
    )


def _check_rounds(rounds: int, top: int | None) -> None:
    """Where there is a cut, how many rows there are to compare is only known in the end."""
    if rounds < 1:
        raise UserError(f"{rounds} rounds compare nothing: ask for at least one, or leave them out.")
    if top == 1:
        raise UserError("Rounds compare the rows of the list with each other, but it is to hold one row only.")
    if top is not None and top > MOST_COMPARED:
        raise UserError(
            f"At most {MOST_COMPARED:,} rows are compared in rounds: {rounds:,} rounds of the best {top:,} would be "
            f"{rounds * top:,} questions about two rows each. Ask for fewer of the best, or leave the rounds out."
        )
    most = (top or MOST_COMPARED) - 1
    if rounds > most:
        raise UserError(
            f"{rounds:,} rounds are too many: each row of {most + 1:,} has {most:,} others to be compared with."
        )
