"""The form of a ranking: what its fields ask for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from gristmill.scoring.jobs.job import ProxyChoice, ProxyKind, RankForm, ScoreForm, TableFacts
from gristmill.scoring.rank.side import check_cut, parse_cut
from gristmill.scoring.rank.wish import RankWish, goal_of
from gristmill.scoring.scale import parse_scale
from gristmill.user_error import UserError
from gristmill.web.score_form import chosen_in, form_of, text_in

#: Fields that a form of a scoring has, too.
_QUESTIONS = ("rubric", "scale", "model", "id", "columns", "method", "truth")
_PACKAGES = ("numpy", "scipy", "sklearn")
#: Characters of a number, and of what else is written on one line.
_NUMBER_CHARS, _LINE_CHARS = 15, 200


class Written(NamedTuple):
    """The fields of their own as they were written, or as they are proposed: what is wrong is shown again."""

    top: str = "100"
    cut: str = ""
    recall: str = "0.95"
    confidence: str = "0.95"
    precision: str = ""
    assume: str = ""
    proxy: str = ProxyKind.FEATURES
    budget: str = ""
    or_all: bool = False
    look: bool = True
    seed: str = "0"
    rounds: str = ""


def missing_packages() -> str:
    """What to install before anything can be ranked, in a sentence; empty where nothing is missing."""
    if all(importlib.util.find_spec(package) for package in _PACKAGES):
        return ""
    return (
        "The server lacks packages that this needs: whoever runs it can add them with pip install 'gristmill[score]'."
    )


def written_of(form: RankForm) -> Written:
    wish, proxy = form.wish, form.proxy
    return Written(
        _text(wish.top), _text(wish.cut), _text(wish.recall), _text(wish.confidence), _text(wish.precision),
        _text(wish.assume), f"{proxy.kind}:{proxy.name}" if proxy.name else str(proxy.kind), _text(wish.budget),
        wish.or_all, form.look, _text(wish.seed), _text(wish.rounds),
    )  # fmt: skip


def written_in(fields: Mapping[str, Sequence[str]]) -> Written:
    line = {name: text_in(fields, name)[:_LINE_CHARS] for name in Written._fields}
    line["proxy"] = chosen_in(fields, "proxy")
    ticks = {name: bool(line.pop(name)) for name in ("or_all", "look")}
    return Written(**line, **ticks)  # type: ignore[arg-type]


def rank_form_of(
    fields: Mapping[str, Sequence[str]], facts: TableFacts, models: Sequence[str]
) -> tuple[ScoreForm, RankForm | None, str]:
    """What is asked of a row; the whole, None where something is wrong, and then what."""
    questions, problem = form_of({name: fields[name] for name in _QUESTIONS if name in fields}, facts, models)
    try:
        written = written_in(fields)
        wish, proxy = _wish(written), _proxy(written.proxy, questions, facts, models)
        if not problem:
            _check(wish, questions, facts.rows)
    except UserError as error:
        problem = problem or str(error)
    problem = problem or missing_packages()
    if problem:
        return questions, None, problem
    return questions, RankForm(questions, wish, proxy, written.look), ""


def with_budget(form: RankForm, fields: Mapping[str, Sequence[str]]) -> RankForm:
    """The same, to go on. Raises UserError."""
    budget = _whole(text_in(fields, "budget"), "The rows to be judged at most have")
    wish = msgspec.structs.replace(form.wish, budget=budget, or_all=bool(text_in(fields, "or_all")))
    return msgspec.structs.replace(form, wish=wish, look=False)


def _check(wish: RankWish, questions: ScoreForm, rows: int) -> None:
    """Raises UserError for what cannot be promised."""
    side = parse_cut(wish.cut, questions.name) if wish.cut is not None else None
    if side is not None:
        check_cut(side, parse_scale(questions.scale).values)
    goal_of(wish, rows, side)


def _wish(written: Written) -> RankWish:
    """Raises UserError for what is no number."""
    return RankWish(
        top=_whole(written.top, "How many of the best are wanted has"),
        cut=written.cut or None,
        recall=_share(written.recall, "recall"),
        precision=_share(written.precision, "precision") if written.precision else None,
        confidence=_share(written.confidence, "confidence"),
        budget=_whole(written.budget, "The rows to be judged at most have"),
        assume=written.assume or None,
        or_all=written.or_all,
        seed=_whole(written.seed, "The seed has") or 0,
        rounds=_whole(written.rounds, "The rounds have"),
    )


def _proxy(text: str, questions: ScoreForm, facts: TableFacts, models: Sequence[str]) -> ProxyChoice:
    """Raises UserError."""
    kind, _, name = text.partition(":")
    if kind == ProxyKind.COLUMN and name in facts.columns:
        return ProxyChoice(ProxyKind.COLUMN, name)
    if kind == ProxyKind.MODEL and name in models:
        if name == questions.model:
            raise UserError(
                f"The model {name} is to judge and to guess, so that nothing would be saved: choose another one, a "
                "column, or the words of the rows."
            )
        return ProxyChoice(ProxyKind.MODEL, name)
    if kind == ProxyKind.EMBEDDINGS and name in models:
        return ProxyChoice(ProxyKind.EMBEDDINGS, name)
    if kind in ("", ProxyKind.FEATURES):
        return ProxyChoice()
    raise UserError(f"Neither the table nor the server has '{text[:100]}' to guess by: choose one of the list.")


def _whole(text: str, of_what: str) -> int | None:
    """None where nothing is written. Raises UserError."""
    if not text:
        return None
    try:
        if len(text) <= _NUMBER_CHARS:
            return int(text)
    except ValueError:
        pass
    raise UserError(f"{of_what} to be a whole number, not '{text[:50]}'.")


def _share(text: str, name: str) -> float:
    """Raises UserError."""
    try:
        return float(text)
    except ValueError:
        raise UserError(f"The {name} has to be a share, such as 0.95, not '{text[:50]}'.") from None


def _text(value: object) -> str:
    return "" if value is None else str(value)
