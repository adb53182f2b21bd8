"""Scores for Polars and pandas frames, from Python."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import polars as pl

from gristmill.batches.host import HostSettings
from gristmill.client import Client
from gristmill.engines.registry import EngineSettings, with_engine
from gristmill.models.cache import cache_folder
from gristmill.scoring.audit import Difference
from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.calibration import Calibration
from gristmill.scoring.compare import CompareWish, Comparing, Comparison
from gristmill.scoring.conductor import Escalation, Scoring
from gristmill.scoring.local import LocalBackend
from gristmill.scoring.questionnaire import ScoreOptions
from gristmill.scoring.receipt import ScoreReceipt, files_beside, read_receipt, write_receipt
from gristmill.scoring.remote import RemoteBackend
from gristmill.scoring.scale import Scale, of_numbers, parse_scale
from gristmill.scoring.truth import Agreement
from gristmill.scoring.verify import Verification
from gristmill.scoring.verify import verify as verify_rows
from gristmill.scratch import scratch_folder
from gristmill.storage.open import StorageSettings
from gristmill.user_error import UserError

Frame = TypeVar("Frame")


class ScoreServer(NamedTuple):
    """A server by its address, with or without ``/v1``; ``model`` None for its only one."""

    url: str
    model: str | None = None
    api_key: str | None = None


class Better(NamedTuple):
    """Scores for which ``when`` holds ("entropy > 1.5 or 4 <= score <= 6") are asked of the model ``on``, too."""

    when: str
    on: EngineSettings | ScoreServer


class Scored(NamedTuple, Generic[Frame]):
    """``frame``: the rows with their scores, as the kind of frame that was given. With right scores (``options.truth``)
    there are, for each score by its name, the ``agreement`` with them and the ``calibration``: what they say of all
    rows; and the rows whose right score is ``wanted``, where some were asked for. ``receipt``: all that the scores came
    from."""

    frame: Frame
    receipt: ScoreReceipt
    agreement: dict[str, Agreement]
    calibration: dict[str, Calibration]
    wanted: Frame | None

    def write_receipt(
        self, path: str | Path, table: str | Path | None = None, scores: str | Path | None = None
    ) -> None:
        """For ``gristmill score --verify``, with the files where the frame came from and where you have written it."""
        files = files_beside(Path(path), table, scores)
        receipt = self.receipt
        write_receipt(
            msgspec.structs.replace(
                receipt,
                table=msgspec.structs.replace(receipt.table, file=files.table),
                scores=msgspec.structs.replace(receipt.scores, file=files.scores),
            ),
            Path(path),
        )


def score(
    frame: Frame,
    rubric: str,
    scale: range | str,
    *,
    options: ScoreOptions = ScoreOptions(),  # noqa: B008 - immutable
    on: EngineSettings | ScoreServer = EngineSettings("auto"),  # noqa: B008 - immutable
    better: Better | None = None,
    resume: str | Path | None = None,
) -> Scored[Frame]:
    """The frame (Polars or pandas) with the scores of its rows as further columns, as ``gristmill score`` writes them,
    and what there is to say of them.

    ``rubric`` is its text; ``scale`` a range or what ``--scale`` takes; ``on`` an engine here, or a server. ``resume``
    names a folder that keeps what is done, so that the same call goes on after an interruption; without it, nothing is
    kept. Raises ``UserError``; rows that fail have no score, but say why.
    """
    table = polars_of(frame)
    scoring = _scoring(table, rubric, scale, options, on, better)
    kept = contextlib.nullcontext(Path(resume)) if resume is not None else scratch_folder(scoring_scratch())
    with kept as folder:
        scored = scoring.run(folder)
        receipt = scoring.receipt(folder, scored)
    return Scored(
        like(frame, table, scored.table),
        receipt,
        {each.name: each.agreement for each in scored.reports if each.agreement is not None},
        {each.name: each.calibration for each in scored.reports if each.calibration is not None},
        same_kind(frame, scored.wanted) if scored.wanted is not None else None,
    )


def audit(
    frame: Any,
    rubric: str,
    scale: range | str,
    rows: int,
    *,
    options: ScoreOptions = ScoreOptions(),  # noqa: B008 - immutable
    on: EngineSettings | ScoreServer = EngineSettings("auto"),  # noqa: B008 - immutable
) -> list[Difference]:
    """How far ``rows`` scores, spread over the frame, differ under changes that should not matter. Raises
    ``UserError``."""
    scoring = _scoring(polars_of(frame), rubric, scale, options, on, None)
    with scratch_folder(scoring_scratch()) as folder:
        return scoring.audit(rows, folder)


def compare(
    frame: Any,
    rubric: str,
    scale: range | str,
    a: EngineSettings | ScoreServer,
    b: EngineSettings | ScoreServer,
    rows: int = 100,
    *,
    options: ScoreOptions = ScoreOptions(),  # noqa: B008 - immutable
    cut: float | None = None,
    confidence: float = 0.9,
) -> Comparison:
    """What asking ``b`` instead of ``a`` does to scores: ``rows`` random rows of the frame, always the same ones, are
    scored by one and then by the other. Rows with a score of ``cut`` or more are selected; ``confidence`` of the
    intervals. Needs the extra ``score``. Raises ``UserError``."""
    if a == b:
        raise UserError(f"Both models to compare are the same: {a.model or 'the only one'}.")
    wish = CompareWish(rows, cut, confidence)
    backends = backend_on(a), backend_on(b)
    comparing = Comparing(polars_of(frame), rubric, scale_of(scale), _polars_in(options), backends, wish)
    with scratch_folder(scoring_scratch()) as folder:
        return comparing.run(folder)


def verify(
    receipt: ScoreReceipt | str | Path,
    frame: Any,
    scored: Any,
    on: EngineSettings | ScoreServer,
    rows: int = 100,
) -> Verification:
    """Whether ``rows`` random rows of the ``frame`` get the scores again that are in ``scored``, and whether both are
    what the receipt (or the file that has it) vouches for. ``on``: where they are scored; nothing that the receipt
    names is used for that. Raises ``UserError``."""
    known = receipt if isinstance(receipt, ScoreReceipt) else read_receipt(Path(receipt))
    with scratch_folder(scoring_scratch()) as folder:
        return verify_rows(known, polars_of(frame), polars_of(scored), backend_on(on), rows, folder)


def scoring_scratch() -> Path:
    """Where scorings that nobody resumes keep their work: not among the system's temporary files, which may be in
    memory, or be tidied away while they run."""
    return cache_folder() / "scoring"


def _scoring(
    table: pl.DataFrame,
    rubric: str,
    scale: range | str,
    options: ScoreOptions,
    on: EngineSettings | ScoreServer,
    better: Better | None,
) -> Scoring:
    escalation = Escalation(better.when, backend_on(better.on)) if better is not None else None
    return Scoring(table, rubric, scale_of(scale), _polars_in(options), backend_on(on), escalation)


def _polars_in(options: ScoreOptions) -> ScoreOptions:
    return options if options.examples is None else options._replace(examples=polars_of(options.examples))


def backend_on(on: EngineSettings | ScoreServer) -> ScoreBackend:
    if isinstance(on, ScoreServer):
        return RemoteBackend(Client(on.url, on.api_key), on.model)
    on, _ = with_engine(on)
    texts = {key: str(value) for key, value in on.options.items()}
    return LocalBackend(HostSettings(StorageSettings(Path()), on._replace(options=texts)))


def scale_of(scale: range | str) -> Scale:
    return parse_scale(scale) if isinstance(scale, str) else of_numbers(scale)


def polars_of(frame: Any) -> pl.DataFrame:
    """A pandas frame by its values: its missing ones are NaN or None, and both are empty cells here."""
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if not hasattr(frame, "columns") or not hasattr(frame, "assign"):
        raise TypeError(f"score takes a Polars or pandas frame, not {type(frame).__name__}")
    return pl.DataFrame({str(name): pl.Series(_values(frame[name]), strict=False) for name in frame.columns})


def _values(column: Any) -> list[Any]:
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]


def same_kind(frame: Frame, table: pl.DataFrame) -> Frame:
    """``table`` as the kind of frame that was given; a pandas frame with an index of its own."""
    if isinstance(frame, pl.DataFrame | pl.LazyFrame):
        return table if isinstance(frame, pl.DataFrame) else table.lazy()  # type: ignore[return-value]
    return type(frame)(table.to_dict(as_series=False))  # type: ignore[call-arg]


def like(frame: Frame, table: pl.DataFrame, scored: pl.DataFrame, rows: Sequence[int] | None = None) -> Frame:
    """``scored``, which is ``table`` with more columns, as the kind of frame that was given; of it only ``rows``, in
    their order, where they are named."""
    if isinstance(frame, pl.DataFrame | pl.LazyFrame):
        return same_kind(frame, scored)
    new = [name for name in scored.columns if name not in table.columns]
    kept: Any = frame if rows is None else frame.iloc[list(rows)]  # type: ignore[attr-defined]
    return kept.assign(**{name: scored[name].to_list() for name in new})  # type: ignore[no-any-return]
