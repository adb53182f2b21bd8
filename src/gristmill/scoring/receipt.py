"""A scored table's receipt: all that its scores came from, so that anyone can score rows of it again and compare."""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from gristmill.batches.job_folder import write_whole
from gristmill.scoring.computation import Computation
from gristmill.scoring.passes import RETRY
from gristmill.scoring.prompt import Example, shared_body
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.user_error import UserError

#: Of the form of a receipt.
VERSION = 1


class Asked(msgspec.Struct, frozen=True):
    """What was asked of each row. ``prompt_sha256``: of all that rows share, as it is sent (JSON). ``row``: the row
    template, None for a line for each of ``columns``. ``labels`` and ``values``: the scale. ``names``: of the scores.
    ``again``: with what an answer that was not valid is asked for once more; everything else is without chance."""

    prompt_sha256: str
    rubric: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    criteria: tuple[str, ...]
    examples: list[Example]
    reason: bool
    method: str
    begun: bool
    most_off_scale: float
    row: str | None
    columns: list[str]
    id_column: str | None
    names: list[str]
    again: dict[str, Any]


class Rows(msgspec.Struct, frozen=True):
    """The table. ``file``: as seen from the receipt's folder, None where there was none. ``sha256``: of what is sent of
    each row, so that the same rows in another file format are the same table."""

    file: str | None
    rows: int
    sha256: str


class Scores(msgspec.Struct, frozen=True):
    """The scored table. ``file`` as for ``Rows``; ``without``: rows without each score; ``sha256``: of the scores, as
    float64 in the order of the rows, score by score, NaN where there is none."""

    file: str | None
    without: dict[str, int]
    sha256: str


class Escalated(msgspec.Struct, frozen=True):
    """Scores for which the condition held were asked of a better model, too."""

    when: str
    computed: list[Computation]


class ScoreReceipt(msgspec.Struct, frozen=True):
    """``computed``: what answered; several where the set-up changed while the job was stopped. ``made_at``: UTC."""

    version: int
    made_at: str
    computed: list[Computation]
    escalated: Escalated | None
    asked: Asked
    table: Rows
    scores: Scores


class ReceiptFiles(NamedTuple):
    """As seen from the receipt's folder."""

    table: str | None
    scores: str | None


NO_FILES = ReceiptFiles(None, None)


def files_beside(receipt: Path, table: str | Path | None, scores: str | Path | None) -> ReceiptFiles:
    """As seen from the receipt's folder, so that they can be moved together; ``-`` is none."""
    seen = [os.path.relpath(each, receipt.parent) if each not in (None, "-") else None for each in (table, scores)]
    return ReceiptFiles(*seen)


def score_receipt(
    questionnaire: Questionnaire,
    computed: list[Computation],
    escalated: Escalated | None,
    scored: pl.DataFrame,
    files: ReceiptFiles = NO_FILES,
) -> ScoreReceipt:
    """``scored`` has the scores in the columns ``questionnaire.names``; a row that was not scored has none."""
    names = questionnaire.names
    without = {name: scored[name].null_count() for name in names}
    return ScoreReceipt(
        VERSION,
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        computed,
        escalated,
        asked_of(questionnaire),
        Rows(files.table, scored.height, texts_digest(questionnaire, scored.height)),
        Scores(files.scores, without, scores_digest(scored, names)),
    )


def asked_of(questionnaire: Questionnaire) -> Asked:
    instrument, method, most_off_scale = questionnaire.settings[:3]
    shared = msgspec.json.encode(shared_body(instrument, method))
    return Asked(
        hashlib.sha256(shared).hexdigest(),
        instrument.rubric,
        instrument.scale.labels,
        instrument.scale.values,
        instrument.criteria,
        list(instrument.examples),
        instrument.reason,
        method.name,
        method.begun,
        most_off_scale,
        questionnaire.template.source,
        questionnaire.template.shown,
        questionnaire.id_column,
        list(questionnaire.names),
        RETRY,
    )


def texts_digest(questionnaire: Questionnaire, rows: int) -> str:
    digest = hashlib.sha256()
    for row in range(rows):
        text = questionnaire.text_of(row).encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.hexdigest()


def scores_digest(scored: pl.DataFrame, names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        values = scored[name].cast(pl.Float64).fill_nan(None)
        # One NaN, whatever its bits.
        given = array("d", [math.nan if value is None else value for value in values])
        if sys.byteorder == "big":
            given.byteswap()
        digest.update(given.tobytes())
    return digest.hexdigest()


def write_receipt(receipt: ScoreReceipt, path: Path) -> None:
    write_whole(path, msgspec.json.format(msgspec.json.encode(receipt), indent=2) + b"\n")


def read_receipt(path: Path) -> ScoreReceipt:
    """Raises UserError."""
    try:
        receipt = msgspec.json.decode(path.read_bytes(), type=ScoreReceipt)
    except OSError as error:
        raise UserError(f"The receipt {path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a receipt of 'gristmill score': {error}.") from None
    if receipt.version != VERSION:
        raise UserError(f"The receipt {path} is of version {receipt.version}; this Gristmill reads version {VERSION}.")
    if not _is_sound(receipt.asked):
        raise UserError(
            f"The receipt {path} was changed: its scale or the names of its scores do not belong together. Take the "
            "one that was written with the scores."
        )
    return receipt


def _is_sound(asked: Asked) -> bool:
    labels, values, names = asked.labels, asked.values, asked.names
    scale = len(labels) == len(values) == len(set(labels)) and all(labels) and len(set(values)) > 1
    return scale and len(names) == len(set(names)) == max(1, len(asked.criteria))
