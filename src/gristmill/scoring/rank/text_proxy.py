"""Scores guessed from the words of a row: ridge regression over TF-IDF of words and of groups of characters. Pure.

It learns from the few hundred rows that the judge has scored. What it has not met there has no weight, so that its
vocabulary is theirs, and a table of any length is gone through in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gristmill.extras import require
from gristmill.scoring.rank.ridge import Ridge

#: Rows turned into features at a time.
_BLOCK = 4096


class TextProxy(NamedTuple):
    """``held_out``: of each row it was trained on, in their order, what it says when it was not trained on it."""

    held_out: Any
    features: Any
    weights: Any
    intercept: float

    def guesses(self, texts: Iterator[str], rows: int) -> Any:
        """An array of ``rows`` numbers, one for each of the texts, on the scores' scale."""
        numpy = require("numpy", "score")
        found = numpy.empty(rows)
        for begin in range(0, rows, _BLOCK):
            block = [next(texts) for _ in range(min(_BLOCK, rows - begin))]
            found[begin : begin + len(block)] = self.features.transform(block) @ self.weights + self.intercept
        return found


def train_text_proxy(texts: Sequence[str], scores: Sequence[float]) -> TextProxy:
    """From at least two rows. Raises UserError where scikit-learn is not there, or no text has a word in it."""
    numpy = require("numpy", "score")
    known = numpy.asarray(scores, dtype=float)
    features = _features()
    rows = features.fit_transform(list(texts))
    ridge = Ridge.through((rows @ rows.T).toarray(), known)
    return TextProxy(ridge.held_out, features, *ridge.line(rows, known))


def _features() -> Any:
    text = require("sklearn.feature_extraction.text", "score")
    pipeline = require("sklearn.pipeline", "score")
    words = text.TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    characters = text.TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 4))
    return pipeline.make_union(words, characters)
