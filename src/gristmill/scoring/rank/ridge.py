"""Ridge regression from inner products, for a few thousand rows with any number of features. Pure.

Hoerl and Kennard, "Ridge Regression" (1970). The penalty is the one whose predictions of rows that are left out err
least, by the closed form of Allen's PRESS (1974): the residual over one minus the leverage.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gristmill.extras import require

#: Penalties that are tried out, in units of the features' mean square length (whose sum the trace is).
_PENALTIES = tuple(10.0**exponent for exponent in range(-4, 3))
_FOLDS = 10


class Ridge(NamedTuple):
    """The weights of features ``X`` are ``X.T @ dual``. ``held_out``: what is said of each row by a fit to the nine
    tenths of the rows that it does not belong to."""

    dual: Any
    held_out: Any

    @classmethod
    def through(cls, products: Any, scores: Any) -> Ridge:
        """``products``: n by n inner products of the rows' features, which are centred here; ``scores``: n numbers."""
        numpy = require("numpy", "score")
        centred = products - products.mean(axis=0) - products.mean(axis=1)[:, None] + products.mean()
        unit = max(float(numpy.trace(centred)) / len(scores), 1e-12)
        values, vectors = numpy.linalg.eigh(centred)
        along = vectors.T @ (scores - scores.mean())

        def left_out_error(penalty: float) -> float:
            shrunk = penalty / (numpy.maximum(values, 0) + penalty)
            residuals = vectors @ (shrunk * along)
            leverage = 1 / len(scores) + ((1 - shrunk) * vectors**2).sum(axis=1)
            return float(((residuals / numpy.maximum(1 - leverage, 1e-9)) ** 2).sum())

        penalty = min((unit * each for each in _PENALTIES), key=left_out_error)
        dual = vectors @ (along / (numpy.maximum(values, 0) + penalty))
        # The rows come in random order: every tenth is a random tenth.
        fold = numpy.arange(len(scores)) % _FOLDS
        held_out = numpy.full(len(scores), scores.mean())
        for left in range(min(_FOLDS, len(scores))):
            rest, own = fold != left, fold == left
            held_out[own] = _predicted(numpy, products, scores, rest, own, penalty)
        return cls(dual, held_out)

    def line(self, features: Any, scores: Any) -> tuple[Any, float]:
        """Weights and intercept: what is said of any row with features ``x`` is ``x @ weights + intercept``. Of the
        ``features`` that it is through, n by p, and their scores."""
        weights = features.T @ self.dual
        return weights, float(scores.mean() - (features @ weights).mean())


def _predicted(numpy: Any, products: Any, scores: Any, rest: Any, own: Any, penalty: float) -> Any:
    """Of the rows ``own``, from the rows ``rest``."""
    inner = products[numpy.ix_(rest, rest)]
    across = products[numpy.ix_(own, rest)]
    mean = inner.mean(axis=0)
    centred = inner - mean - mean[:, None] + inner.mean()
    dual = numpy.linalg.solve(centred + penalty * numpy.eye(len(inner)), scores[rest] - scores[rest].mean())
    return scores[rest].mean() + (across - mean) @ (dual - dual.mean())
