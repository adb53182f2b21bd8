"""Tables whose judge's scores are known: made ones with a known dependence, and texts with people's labels."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from replays import Table
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from packaged_texts import labelled_sentences, ratings

_COMPONENTS = 100


def _fixed(proxy: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda rows, scores: proxy


def normal(rows: int, spearman: float) -> Callable[[int], Table]:
    """Normal scores and proxies with this rank correlation; the rows stand in the proxy's order."""
    likeness = 2 * math.sin(math.pi / 6 * spearman)
    proxy = _sorted_normals(rows)

    def made(seed: int) -> Table:
        noise = np.random.default_rng(seed).normal(size=rows)
        return Table(likeness * proxy + math.sqrt(1 - likeness**2) * noise, _fixed(proxy))

    return made


def heavy_tailed(rows: int) -> Callable[[int], Table]:
    """What the proxy does not know has a Student distribution with 3 degrees of freedom: many of the best owe to it."""
    proxy = _sorted_normals(rows)

    def made(seed: int) -> Table:
        return Table(proxy + 0.4 * np.random.default_rng(seed).standard_t(3, size=rows), _fixed(proxy))

    return made


def tied(rows: int) -> Callable[[int], Table]:
    """Whole numbers from 0 to 10; about 200 in 20,000 rows score 10."""
    proxy = _sorted_normals(rows)

    def made(seed: int) -> Table:
        noise = np.random.default_rng(seed).normal(size=rows)
        return Table(np.clip(np.round(4.8 + 2 * (0.8 * proxy + 0.6 * noise)), 0, 10), _fixed(proxy))

    return made


def hidden(rows: int, count: int) -> Callable[[int], Table]:
    """A perfect proxy, but for ``count`` of the very best, which it puts at its bottom: the worst there can be."""
    proxy = _sorted_normals(rows)
    score = proxy.copy()
    score[-count:] = proxy[0] + 1 + np.arange(count)
    return lambda seed: Table(score, _fixed(proxy))


def sentences() -> Table:
    """3,000 sentences of reviews, labelled 1 (good) or 0."""
    return _texts([(text, label) for text, label, _ in labelled_sentences()], words=True)


def words(table: str, column: str) -> Table:
    """Words with their mean rating by people."""
    return _texts(list(ratings(table, column).items()), words=False)


def _texts(known: list[tuple[str, float]], words: bool) -> Table:
    """The proxy is a ridge regression over TF-IDF (of words, or of groups of letters), trained on the pilot."""
    kinds = {"ngram_range": (1, 2)} if words else {"analyzer": "char_wb", "ngram_range": (2, 4)}
    features = TfidfVectorizer(sublinear_tf=True, **kinds).fit_transform([text for text, _ in known])
    features = TruncatedSVD(_COMPONENTS, random_state=0).fit_transform(features)

    def proxy(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
        seen = features[rows] - features[rows].mean(axis=0)
        penalty = np.trace(seen.T @ seen) / _COMPONENTS * np.eye(_COMPONENTS)
        return features @ np.linalg.solve(seen.T @ seen + penalty, seen.T @ (scores - scores.mean()))

    return Table(np.array([score for _, score in known]), proxy)


def _sorted_normals(rows: int) -> np.ndarray:
    return np.sort(np.random.default_rng(0).normal(size=rows))[::-1].copy()
