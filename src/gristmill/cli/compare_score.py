"""``gristmill score --compare A B``: what quantization or another model does to scores."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from gristmill.cli import config, scoring, show
from gristmill.engines.registry import ENGINES, EngineSettings
from gristmill.printable import printable
from gristmill.scratch import scratch_folder
from gristmill.user_error import UserError

if TYPE_CHECKING:
    # Imported where it is used: tables would slow every other command's start.
    from gristmill.batches.host import HostSettings
    from gristmill.scoring.backend import ScoreBackend
    from gristmill.scoring.compare import Comparing, Comparison
    from gristmill.scoring.comparison import ScoreComparison
    from gristmill.scoring.statistics.prediction_powered import Estimate

_SHOWN = 10
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_-]*=")


def parse_side(text: str, given: EngineSettings, server: str | None) -> EngineSettings:
    """One of the two: ``MODEL``, ``MODEL,key=value,...`` or ``key=value,...``; what it does not say is as ``given`` for
    the command. ``engine`` and ``url`` are keys, too; the others are options of the engine. Raises UserError."""
    parts = [part.strip() for part in text.split(",")]
    model = None if _OPTION.match(parts[0]) else parts.pop(0)
    if model == "" or any(not _OPTION.match(part) for part in parts):
        raise UserError(
            f"'{text}' of --compare is not MODEL or MODEL,KEY=VALUE: such as smollm2-135m-instruct,precision=f32 or "
            "gemma3:4b,engine=ollama."
        )
    keys = [part.partition("=")[0].replace("-", "_") for part in parts]
    if len(set(keys)) < len(keys):
        raise UserError(f"'{text}' of --compare says something twice: leave one of the two out.")
    if model is not None and model.partition(":")[0] in set(ENGINES) - {"ollama"}:
        engine, _, rest = model.partition(":")
        raise UserError(f"Of --compare, name the engine behind the model: {rest or 'MODEL'},engine={engine}.")
    if parts and server is not None:
        raise UserError(f"A server's models are compared by their names alone: leave out '{','.join(parts)}'.")
    options = {key: part.partition("=")[2] for key, part in zip(keys, parts, strict=True)}
    engine, url = options.pop("engine", given.engine), options.pop("url", None)
    # Another engine has other options, and another address.
    same = given if engine == given.engine else EngineSettings(engine)
    return EngineSettings(engine, model or given.model, url or same.url, {**same.options, **options})


def compare_backends(
    sides: tuple[str, str], given: EngineSettings, host: HostSettings, server: str | None, reuse_answers: bool
) -> tuple[ScoreBackend, ScoreBackend]:
    """Raises UserError, also where the two are the same."""
    settled = config.settled if server is None else config.unsettled
    a, b = (settled(parse_side(each, given, server)) for each in sides)
    if a == b:
        raise UserError(f"Both of --compare are the same, '{sides[0]}': name two that differ.")
    one, other = (scoring.backend_of(server, host._replace(engine=each), reuse_answers) for each in (a, b))
    return one, other


def check_alone(given: Mapping[str, object]) -> None:
    """``given`` by option: what a comparison would not do. Raises UserError."""
    said = [option for option, value in given.items() if value]
    if said:
        raise UserError(f"--compare writes no table of scores: leave out {', '.join(said)}.")


def run_and_tell(comparing: Comparing, title: str, report: Path | None, as_json: bool) -> None:
    from gristmill.html_page import told_date
    from gristmill.scoring.comparison_page import comparison_page
    from gristmill.scoring.comparison_words import sides
    from gristmill.scoring.frames import scoring_scratch

    with scoring.stops(False, scoring.BEGIN_ANEW), scratch_folder(scoring_scratch()) as work:
        found = comparing.run(work)
    if report is not None:
        show.write_page(report, comparison_page(title, told_date(time.time()), found))
    if as_json:
        show.print_json(comparison_facts(found) | {"report": str(report) if report is not None else None})
        return
    for line in sides(found):
        show.console.print(printable(line))
    for score in found.scores:
        _print(score)


def comparison_facts(found: Comparison) -> dict[str, Any]:
    """What ``--json`` prints."""
    import msgspec

    return {
        side: {
            "model": told.model,
            "place": told.place,
            "method": told.method,
            "computed": msgspec.to_builtins(told.computed),
        }
        for side, told in (("a", found.a), ("b", found.b))
    } | {
        "rows": found.rows,
        "table_rows": found.of,
        "confidence": found.confidence,
        "scores": [_facts(each) for each in found.scores],
    }


def _facts(score: ScoreComparison) -> dict[str, Any]:
    at_cut = score.at_cut
    return score._asdict() | {
        "rank_correlation": score.rank_correlation._asdict() if score.rank_correlation is not None else None,
        "difference": score.difference._asdict(),
        "labels_differ": score.labels_differ._asdict(),
        "at_cut": at_cut._asdict() | {"agreement": at_cut.agreement._asdict()} if at_cut is not None else None,
        "changes": [each._asdict() for each in score.changes],
    }


def _print(score: ScoreComparison) -> None:
    from gristmill.scoring.comparison_words import cut_told, measures, rows_told

    show.console.print(printable(rows_told(score)))
    table = Table("measure", box=None, header_style="bold")
    for heading in ("value", "from", "to"):
        table.add_column(heading, justify="right")
    for name, estimate in measures(score):
        table.add_row(printable(name), *_figures(estimate))
    show.print_table(table)
    if score.at_cut is not None:
        show.console.print(cut_told(score.at_cut))
    changed = Table("changed most", box=None, header_style="bold")
    for heading in ("A", "B", "B - A"):
        changed.add_column(heading, justify="right")
    for each in score.changes[:_SHOWN]:
        if each.a != each.b:
            changed.add_row(printable(each.id), f"{each.a:.3f}", f"{each.b:.3f}", f"{each.b - each.a:+.3f}")
    if changed.row_count:
        show.print_table(changed)


def _figures(estimate: Estimate | None) -> tuple[str, str, str]:
    if estimate is None:
        return "undefined", "", ""
    value, low, high = (f"{each:.3f}" for each in estimate)
    return value, low, high
