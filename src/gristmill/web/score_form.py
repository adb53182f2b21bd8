"""The form of a scoring: what its fields ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from fastapi import Request

from gristmill.scoring.jobs.job import ScoreForm, TableFacts
from gristmill.scoring.scale import parse_scale
from gristmill.user_error import UserError
from gristmill.wire.errors import ApiError, too_large

#: Of the whole form: a rubric of a quarter of a million tokens.
_MAX_BYTES = 2 * 1024 * 1024
_MAX_FIELDS = 2_000
_ID_NAMES = ("id", "key", "name", "custom_id")
METHODS = (
    ("", "as the engine can"),
    ("labels", "labels: the probability of every score"),
    ("generate", "generate: the model writes the score"),
)


async def read_fields(request: Request) -> dict[str, list[str]]:
    """Of a form without files. Raises ApiError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise ApiError(415, "This takes a form, as the page sends it.", code="unsupported_content_type")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise too_large(f"The form is larger than {_MAX_BYTES:,} bytes: shorten the rubric.")
    try:
        return parse_qs(body.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise ApiError(400, f"The form has more than {_MAX_FIELDS:,} fields.") from None


def text_in(fields: Mapping[str, Sequence[str]], name: str) -> str:
    """What was written into one field; empty where it was not sent."""
    return chosen_in(fields, name).strip()


def chosen_in(fields: Mapping[str, Sequence[str]], name: str) -> str:
    """What was chosen of a list, as it stands there: the name of a column may end with a space."""
    return fields.get(name, [""])[0]


def first_form(facts: TableFacts, models: Sequence[str]) -> ScoreForm:
    """What the form proposes: a column that is called like one that names rows is most likely that."""
    named = next((name for name in facts.columns if name.strip().lower() in _ID_NAMES), None)
    columns = [name for name in facts.columns if name != named]
    return ScoreForm("", "0..10", models[0] if models else "", named, columns)


def form_of(fields: Mapping[str, Sequence[str]], facts: TableFacts, models: Sequence[str]) -> tuple[ScoreForm, str]:
    """What is asked, and what is wrong with it: an empty text where nothing is."""

    def text(name: str) -> str:
        return text_in(fields, name)

    def chosen(name: str) -> str:
        return chosen_in(fields, name)

    no_numbers: list[str] = []

    def number(name: str) -> float | None:
        try:
            return float(text(name)) if text(name) else None
        except ValueError:
            no_numbers.append(f"'{text(name)[:100]}' is not a number.")
            return None

    def whole(given: str) -> int:
        if given.isdecimal() and len(given) < 10:
            return int(given)
        if given:
            no_numbers.append(f"'{given[:100]}' is not a number of rows.")
        return 0

    form = ScoreForm(
        rubric=text("rubric").replace("\r\n", "\n"),
        scale=text("scale"),
        model=chosen("model"),
        id_column=chosen("id") or None,
        columns=[name for name in facts.columns if name in fields.get("columns", ())],
        criteria=[each.strip() for each in text("criteria").split(",") if each.strip()],
        method=chosen("method") or None,
        reason=bool(text("reason")),
        # It may be written as well as chosen.
        truth=(chosen("truth") if chosen("truth") in facts.columns else text("truth")) or None,
        by=chosen("by") or None,
        cut=number("cut"),
        truth_cut=number("truth_cut"),
        confidence=0.9 if (confidence := number("confidence")) is None else confidence,
        truth_wanted=whole(text("truth_wanted")),
    )
    return form, no_numbers[0] if no_numbers else _problem(form, facts, models)


def _problem(form: ScoreForm, facts: TableFacts, models: Sequence[str]) -> str:
    if not form.rubric:
        return "Write the rubric: what the model is to judge by."
    if not [name for name in form.columns if name != form.truth]:
        return "Choose at least one column that the model is to see."
    if form.id_column is not None and form.id_column not in facts.columns:
        return f"The table has no column '{form.id_column[:100]}'."
    if form.model not in models:
        return f"The server has no model '{form.model[:100]}'. It has: {', '.join(models) or 'none'}."
    if form.method not in {name or None for name, _ in METHODS}:
        return f"There is no method '{(form.method or '')[:100]}'."
    try:
        parse_scale(form.scale)
    except UserError as error:
        return str(error)
    return ""
