"""Which proxy is meant."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.scoring.rank.embeddings_proxy import EmbeddingsProxy
from gristmill.scoring.rank.proxies import ColumnProxy, ModelProxy, Proxy, WordsProxy
from gristmill.user_error import UserError

AUTOMATIC, FEATURES, EMBEDDINGS = "auto", "features", "embeddings"


def choose_proxy(
    name: str,
    table: pl.DataFrame,
    questionnaire: Questionnaire,
    judge: ScoreBackend,
    backend_of: Callable[[str], ScoreBackend] | None = None,
) -> Proxy:
    """``name``: auto (which is features), features, embeddings:MODEL, a column of the table, or a model; models are
    asked by ``backend_of``. What is both means the first of them. Raises UserError, also where a model is the judge."""
    if name in (AUTOMATIC, FEATURES):
        return WordsProxy(questionnaire)
    kind, colon, model = name.partition(":")
    if kind == EMBEDDINGS and colon and model and backend_of is not None:
        return EmbeddingsProxy(questionnaire, backend_of(model))
    if name in table.columns:
        return ColumnProxy(table, name)
    if kind == EMBEDDINGS and not model:
        raise UserError("Say which model embeds the rows: --proxy embeddings:MODEL.")
    if backend_of is None:
        raise UserError(
            f"The proxy '{name}' is neither {AUTOMATIC}, {FEATURES} nor a column of the table. It has: "
            f"{', '.join(table.columns)}."
        )
    return ModelProxy.beside(judge, questionnaire, backend_of(name))
