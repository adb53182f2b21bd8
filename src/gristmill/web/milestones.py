"""What is worth telling somebody who listens to a page rather than looks at it. Pure.

That something began, ended or broke, and each quarter of a batch; never a figure that just moves.
"""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.web.batch_row import BatchRow

#: A milestone is told for so long (seconds); a page that is opened later does not tell old news.
TOLD_SECONDS = 20.0


class Milestones:
    """``told`` is called with each new state of a page, in order."""

    def __init__(self) -> None:
        self._before: dict[str, BatchRow] | None = None
        self._trouble = ""
        self._text = ""
        self._until = float("-inf")

    def told(self, now: float, rows: Sequence[BatchRow], trouble: str = "") -> str:
        """What to tell at ``now`` (seconds on any clock); ``rows`` of all batches, ``trouble`` of the engine."""
        news = self._news(rows, trouble)
        self._before = {row.id: row for row in rows}
        self._trouble = trouble
        if news:
            self._text, self._until = " ".join(news), now + TOLD_SECONDS
        return self._text if now < self._until else ""

    def _news(self, rows: Sequence[BatchRow], trouble: str) -> list[str]:
        if self._before is None:
            return []
        news = [text for row in rows if (text := _news_of(self._before.get(row.id), row))]
        if bool(trouble) != bool(self._trouble):
            news.append(f"The engine has trouble: {trouble}." if trouble else "The engine answers again.")
        return news


def _news_of(before: BatchRow | None, row: BatchRow) -> str:
    if before is None:
        return f"{row.name}: new."
    if before.state != row.state:
        return f"{row.name}: {row.state}."
    quarter = 4 * row.done // row.total if row.total else 0
    if row.total and quarter > 4 * before.done // row.total and quarter < 4:
        return f"{row.name}: {25 * quarter} % done."
    return ""
