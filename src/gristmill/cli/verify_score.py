"""``gristmill score --verify``: rows of a scored table scored again, and compared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer
from typer.core import TyperCommand

from gristmill.cli import config, scoring, show
from gristmill.engines.choice import AUTOMATIC
from gristmill.engines.registry import EngineSettings
from gristmill.printable import printable
from gristmill.scratch import scratch_folder
from gristmill.user_error import UserError

if TYPE_CHECKING:
    # Imported where it is used: tables would slow every other command's start.
    from gristmill.scoring.receipt import ScoreReceipt
    from gristmill.scoring.verify import Verification

#: Of ``score``, which a receipt says.
_IN_RECEIPT = ("table", "rubric", "id_column", "scale")
_SHOWN = 10
#: Engines whose options say no more than how they compute.
_COMPUTE_HERE = ("openvino", "llama_cpp")


class ScoreCommand(TyperCommand):
    """What must be said to score need not be said to verify: the receipt says it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        verifying = any(each == "--verify" or each.startswith("--verify=") for each in args)
        for parameter in self.params:
            if parameter.name in _IN_RECEIPT:
                parameter.required = not verifying
        return super().parse_args(ctx, args)


def verify_score(
    path: Path, table: str | None, rows: int, given: EngineSettings, server: str | None, wait: str, as_json: bool
) -> None:
    """``given``: the engine, where it is to be another than the receipt's. Exits with the verdict."""
    from gristmill.scoring.frames import scoring_scratch
    from gristmill.scoring.receipt import read_receipt
    from gristmill.scoring.table import read_table
    from gristmill.scoring.verify import verify

    receipt = read_receipt(path)
    source = table or _beside(path, receipt.table.file, "table that was scored: name it after the receipt")
    scored = _beside(path, receipt.scores.file, "scored table: it went to standard output")
    engine, server = _where(receipt, given, server)
    host = scoring.host_settings(config.settled(engine) if server is None else engine, None, 600.0, wait)
    backend = scoring.backend_of(server, host, reuse_answers=False)
    with scoring.stops(False, scoring.BEGIN_ANEW), scratch_folder(scoring_scratch()) as work:
        found = verify(receipt, read_table(source), read_table(scored), backend, rows, work)
    if as_json:
        facts = found._asdict() | {"apart": [each._asdict() for each in found.apart]}
        show.print_json(facts | {"verdict": found.verdict.name.lower()})
    else:
        for line in _lines(found):
            show.console.print(line)
    raise typer.Exit(int(found.verdict))


def receipt_path(output: Path, chosen: Path | None, piped: bool) -> Path | None:
    """Where the receipt of ``output`` goes; None where nothing lies beside it."""
    if chosen is not None or piped:
        return chosen
    return output.with_name(f"{output.name}.receipt.json")


def _beside(receipt: Path, file: str | None, missing: str) -> str:
    if file is None:
        raise UserError(f"The receipt {receipt} knows no {missing}.")
    return os.path.normpath(receipt.parent / file)


def _where(receipt: ScoreReceipt, given: EngineSettings, server: str | None) -> tuple[EngineSettings, str | None]:
    if not receipt.computed:
        raise UserError("The receipt does not say what computed its scores: name an engine, with --engine and --model.")
    before = receipt.computed[-1]
    if before.engine is None:
        if server is None:
            _check_address(before.url, "--server")
        return EngineSettings(AUTOMATIC, given.model or before.model), server or before.url
    engine = before.engine if given.engine == AUTOMATIC else given.engine
    same = engine == before.engine
    options = (before.options if same else {}) | given.options
    url = given.url or (before.url if same else None)
    if server is None:
        if given.url is None:
            _check_address(url, "--url")
        _check_options(engine, options, given.options)
    return EngineSettings(engine, given.model or before.source, url, options), server


def _check_address(urls: str | None, option: str) -> None:
    """A receipt may be anybody's, and names the table, too: no row leaves this machine because a receipt says so."""
    hosts = [urlsplit(url.strip()).hostname or "" for url in (urls or "").split(",") if url.strip()]
    if all(_is_here(host) for host in hosts):
        return
    raise UserError(
        f"The scores came from {printable(urls)}, which is another machine: add {option} {printable(urls)} if rows of "
        "the table may be sent there."
    )


def _check_options(engine: str, options: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Options of other programs may name files, clusters, and code to load: nobody but the user says so."""
    if engine in _COMPUTE_HERE:
        return
    if unsaid := {key: value for key, value in options.items() if key not in given}:
        said = " ".join(f"-O {key}={value}" for key, value in unsaid.items())
        raise UserError(
            f"The scores were computed with options of the engine {engine} that a receipt alone does not set: add "
            f"{printable(said)} if you would choose them yourself."
        )


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
