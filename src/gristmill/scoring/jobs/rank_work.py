"""Finding the best rows of one table, in the process that works on it: the conductor, apart from the server."""

from __future__ import annotations

from pathlib import Path, PurePath

import msgspec

from gristmill.batches.job_folder import write_whole
from gristmill.extras import require
from gristmill.planning.token_bill import Prices
from gristmill.scoring.jobs.job import ProxyKind, RankForm
from gristmill.scoring.jobs.job_store import BEST, CERTIFICATE, REPORT, WORK
from gristmill.scoring.jobs.messages import Began, Planned, Ranked, Score
from gristmill.scoring.jobs.options import options_of
from gristmill.scoring.jobs.rank_summary import BestRow, PlanLine, PlanSummary, RankSummary, Step
from gristmill.scoring.jobs.rubric_time import rubric_time
from gristmill.scoring.jobs.server_backend import Pipes, ServerBackend
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.scoring.scale import parse_scale
from gristmill.scoring.table import read_table, write_table
from gristmill.wire.json import encode

#: Rows of the list that the job's page shows; the report and the table have more.
_LISTED, _ID_CHARS = 25, 200


class RankWork:
    """Imports what ranking needs, which takes a second or two, only where there is something to rank."""

    def __init__(self, task: Score, form: RankForm, pipes: Pipes) -> None:
        """Raises UserError for what cannot work, also where something is not installed."""
        require("sklearn", "score")
        from gristmill.scoring.rank.choice import FEATURES, choose_proxy
        from gristmill.scoring.rank.embeddings_proxy import EmbeddingsProxy
        from gristmill.scoring.rank.proxies import ColumnProxy, ModelProxy, Proxy
        from gristmill.scoring.rank.ranking import Ranking

        self._folder, self._form, self._pipes, self._title = Path(task.folder), form, pipes, task.table
        self._table = table = read_table(str(self._folder / task.file))
        asked = form.questions
        judge = ServerBackend(pipes, asked.model, task.labels)
        options = options_of(asked)
        with rubric_time():
            self._questionnaire = Questionnaire(table, asked.rubric, parse_scale(asked.scale), options, judge)
        proxy: Proxy
        match form.proxy.kind:
            case ProxyKind.COLUMN:
                proxy = ColumnProxy(table, form.proxy.name)
            case ProxyKind.MODEL:
                small = ServerBackend(pipes, form.proxy.name, task.labels)
                proxy = ModelProxy.beside(judge, self._questionnaire, small)
            case ProxyKind.EMBEDDINGS:
                proxy = EmbeddingsProxy(self._questionnaire, ServerBackend(pipes, form.proxy.name, task.labels))
            case ProxyKind.FEATURES:
                proxy = choose_proxy(FEATURES, table, self._questionnaire, judge)
        self._ranking = Ranking(
            table, self._questionnaire, judge, proxy, form.wish, options.truth, self._tell, task.attempt
        )

    def run(self) -> Planned | Ranked:
        """Raises UserError."""
        return self._plan() if self._form.look else self._rank()

    def _plan(self) -> Planned:
        from gristmill.scoring.rank.plan import rank_plan
        from gristmill.scoring.rank.plan_words import plan_sentences

        plan = rank_plan(self._ranking.pilot(self._folder / WORK))
        sentences = plan_sentences(plan, self._form.wish)
        lines = [PlanLine(*step) for step in plan.steps]
        return Planned(PlanSummary(lines, PlanLine(*plan.everything), sentences))

    def _rank(self) -> Ranked:
        from gristmill.scoring.rank.promise import judged_sentence, promise, saved_sentence
        from gristmill.scoring.rank.rank_receipt import rank_receipt
        from gristmill.scoring.rank.report import certificate_facts, rank_page, round_sentences, truth_sentences
        from gristmill.scoring.spent import spent_on

        folder, ranking, questions = self._folder, self._ranking, self._questionnaire
        ranked = ranking.run(folder / WORK)
        about = ranking.about(self._title)
        write_table(ranked.table, folder / BEST)
        receipt = rank_receipt(questions, folder / WORK, self._table.height, PurePath(self._title).name)
        facts = certificate_facts(about, ranked) | {"receipt": msgspec.to_builtins(receipt)}
        write_whole(folder / CERTIFICATE, encode(facts))
        page = rank_page(about, ranked, questions.ids, questions.text_of, Prices(0, 0, "USD"))
        write_whole(folder / REPORT, page.encode())
        made = promise(about.goal, ranked.end, about.parties, ranked.compared is not None)
        judge, proxy = spent_on(ranked.judge_batches), spent_on(ranked.proxy_batches)
        cost = [
            judged_sentence(about.goal, ranked.end.facts),
            saved_sentence(about.goal, ranked.end.facts, judge, proxy),
        ]
        listed = zip(ranked.rows[:_LISTED], ranked.outcomes, ranked.found, strict=False)
        ids = questions.ids
        summary = RankSummary(
            facts["certified"],
            made.headline,
            list(made.promised),
            list(made.assumed),
            list(made.not_promised),
            [*truth_sentences(about, ranked), *round_sentences(about, ranked)],
            [each for each in cost if each],
            len(ranked.rows),
            [BestRow(str(ids[row])[:_ID_CHARS], outcome.score, found) for row, outcome, found in listed],
        )
        return Ranked(summary)

    def _tell(self, sentence: str) -> None:
        self._pipes.say(Began(Step(sentence, *self._ranking.progress)))
