"""Which proxy is meant."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.scoring.rank.proxies import ColumnProxy, ModelProxy, Proxy, WordsProxy
from gristmill.user_error import UserError

AUTOMATIC, FEATURES = "auto", "features"


def choose_proxy(
    name: str,
    table: pl.DataFrame,
    questionnaire: Questionnaire,
    judge: ScoreBackend,
    backend_of: Callable[[str], ScoreBackend] | None = None,
) -> Proxy:
    """``name``: auto (which is features), features, a column of the table, or a model, which ``backend_of`` asks.
    Raises UserError, also where that is the judge."""
    if name in (AUTOMATIC, FEATURES):
        return WordsProxy(questionnaire)
    if name in table.columns:
        return ColumnProxy(table, name)
    if backend_of is None:
        raise UserError(
            f"The proxy '{name}' is neither {AUTOMATIC}, {FEATURES} nor a column of the table. It has: "
            f"{', '.join(table.columns)}."
        )
    return ModelProxy.beside(judge, questionnaire, backend_of(name))
