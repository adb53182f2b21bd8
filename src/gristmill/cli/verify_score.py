"""``gristmill score --verify``: rows of a scored table scored again, and compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from gristmill.cli import config, scoring, show
from gristmill.engines.registry import EngineSettings
from gristmill.printable import printable
from gristmill.scratch import scratch_folder

if TYPE_CHECKING:
    # Imported where it is used: tables would slow every other command's start.
    from gristmill.scoring.verify import Verification

#: Of ``score``, which a receipt says.
_IN_RECEIPT = ("table", "rubric", "id_column", "scale")
_SHOWN = 10


class ScoreCommand(TyperCommand):
    """What must be said to score need not be said to verify: the receipt says it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        verifying = any(each == "--verify" or each.startswith("--verify=") for each in args)
        for parameter in self.params:
            if parameter.name in _IN_RECEIPT:
                parameter.required = not verifying
        return super().parse_args(ctx, args)


def verify_score(
    path: Path,
    table: str | None,
    scores: Path | None,
    rows: int,
    given: EngineSettings,
    server: str | None,
    wait: str,
    as_json: bool,
) -> None:
    """``table`` and ``scores`` where they are not beside the receipt; ``given``: the engine, where it is to be another
    than the receipt's. Exits with 0 where all is identical, 1 where anything differs."""
    from gristmill.scoring.frames import scoring_scratch
    from gristmill.scoring.receipt import read_receipt
    from gristmill.scoring.receipt_trust import computer_named, scores_named, table_named
    from gristmill.scoring.table import read_table
    from gristmill.scoring.verify import Verdict, verify

    receipt = read_receipt(path)
    source = table_named(path, receipt, table)
    scored = scores_named(path, receipt, str(scores) if scores is not None else None)
    engine, server = computer_named(receipt, given, server)
    host = scoring.host_settings(config.settled(engine) if server is None else engine, None, 600.0, wait)
    backend = scoring.backend_of(server, host, reuse_answers=False)
    with scoring.stops(False, scoring.BEGIN_ANEW), scratch_folder(scoring_scratch()) as work:
        found = verify(receipt, read_table(source), read_table(scored), backend, rows, work)
    if as_json:
        facts = found._asdict() | {"apart": [each._asdict() for each in found.apart]}
        show.print_json(facts | {"verdict": found.verdict.value})
    else:
        for line in _lines(found):
            show.console.print(line)
    raise typer.Exit(0 if found.verdict is Verdict.IDENTICAL else 1)


def receipt_path(output: Path, chosen: Path | None, piped: bool) -> Path | None:
    """Where the receipt of ``output`` goes; None where nothing lies beside it."""
    if chosen is not None or piped:
        return chosen
    return output.with_name(f"{output.name}.receipt.json")


def _lines(found: Verification) -> list[str]:
    scores = f"{found.compared:,} scores of {found.rows:,} random rows, computed again"
    if not found.apart:
        lines = [f"{scores}: identical to the bit."]
    else:
        count = f"{len(found.apart):,} of {scores}, are not the same"
        near = f"none is further off than {found.near:g}" if found.apart[0].distance <= found.near else "some by far"
        lines = [f"{count}: {near}."]
    for each in found.apart[:_SHOWN]:
        then, now = ("none" if score is None else f"{score:.6g}" for score in (each.then, each.now))
        lines.append(f"  {printable(each.id)}: {printable(each.name)} {then} then, {now} now")
    if len(found.apart) > _SHOWN:
        lines.append(f"  and {len(found.apart) - _SHOWN:,} more, none of them further apart")
    if found.changed:
        lines.append("What was changed since the table was scored:")
        lines += [f"  {printable(each)}" for each in found.changed]
    if found.differences:
        lines.append("What differs from when the table was scored:")
        lines += [f"  {printable(each)}" for each in found.differences]
    elif found.apart:
        lines.append("Nothing of the set-up that is known differs.")
    return lines
