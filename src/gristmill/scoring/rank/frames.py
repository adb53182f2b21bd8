"""The best rows of Polars and pandas frames, from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from gristmill.engines.registry import EngineSettings
from gristmill.extras import require
from gristmill.scoring.frames import ScoreServer, backend_on, like, polars_of, scale_of, scoring_scratch
from gristmill.scoring.questionnaire import Questionnaire, ScoreOptions
from gristmill.scratch import scratch_folder

Frame = TypeVar("Frame")


class EmbeddingModel(NamedTuple):
    """As a proxy: a model that embeds, ``on`` an engine here or a server. Scores are guessed from its vectors."""

    on: EngineSettings | ScoreServer


class Best(NamedTuple, Generic[Frame]):
    """``frame``: the rows found, the best first, with their scores, as the kind of frame that was given.
    ``certified``: whether the promise was kept; ``sentences`` say in words what is promised, assumed and not promised;
    ``certificate`` is what ``gristmill rank --json`` prints."""

    frame: Frame
    certified: bool
    sentences: list[str]
    certificate: dict[str, Any]


def rank(
    frame: Frame,
    rubric: str,
    scale: range | str,
    *,
    top: int | None = None,
    cut: str | None = None,
    recall: float = 0.95,
    precision: float | None = None,
    confidence: float = 0.95,
    proxy: str | EngineSettings | ScoreServer | EmbeddingModel = "auto",
    budget: int | None = None,
    or_all: bool = False,
    assume: str | None = None,
    seed: int = 0,
    rounds: int | None = None,
    options: ScoreOptions = ScoreOptions(),  # noqa: B008 - immutable
    on: EngineSettings | ScoreServer = EngineSettings("auto"),  # noqa: B008 - immutable
    resume: str | Path | None = None,
) -> Best[Frame]:
    """The ``top`` rows of the frame (Polars or pandas) by the judge's score, or those for which ``cut`` holds
    ("score >= 8"), without judging every row, as ``gristmill rank`` finds them.

    ``on`` is the judge: an engine here, or a server. ``proxy``: "auto" and "features" (the words of the rows), the name
    of a column, where a small model is, or an ``EmbeddingModel``. ``recall``, ``precision`` and ``confidence`` are
    shares; ``assume`` is "thinning" or None. ``rounds``: how often each row found is compared with another one.
    ``resume`` names a folder that keeps what is done. Raises ``UserError``.
    """
    require("sklearn", "score")
    from gristmill.scoring.rank.choice import choose_proxy
    from gristmill.scoring.rank.embeddings_proxy import EmbeddingsProxy
    from gristmill.scoring.rank.proxies import ModelProxy
    from gristmill.scoring.rank.ranking import Ranking
    from gristmill.scoring.rank.report import certificate_facts, sentences
    from gristmill.scoring.rank.wish import RankWish

    table = polars_of(frame)
    if options.examples is not None:
        options = options._replace(examples=polars_of(options.examples))
    judge = backend_on(on)
    questionnaire = Questionnaire(table, rubric, scale_of(scale), options, judge)
    if isinstance(proxy, str):
        guessing = choose_proxy(proxy, table, questionnaire, judge)
    elif isinstance(proxy, EmbeddingModel):
        guessing = EmbeddingsProxy(questionnaire, backend_on(proxy.on))
    else:
        guessing = ModelProxy.beside(judge, questionnaire, backend_on(proxy))
    wish = RankWish(top, cut, recall, precision, confidence, budget, assume, or_all, seed, rounds)
    ranking = Ranking(table, questionnaire, judge, guessing, wish, options.truth)
    if resume is not None:
        ranked = ranking.run(Path(resume))
    else:
        with scratch_folder(scoring_scratch()) as folder:
            ranked = ranking.run(folder)
    about = ranking.about("the frame")
    facts = certificate_facts(about, ranked)
    return Best(like(frame, table, ranked.table, ranked.rows), facts["certified"], sentences(about, ranked), facts)
