"""``gristmill doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli import jsonl, show
from gristmill.cli.batches import DEFAULT_SERVER
from gristmill.doctor.examination import examine
from gristmill.doctor.ray import examine_ray
from gristmill.finding import Finding


def doctor(
    url: Annotated[str, typer.Argument(metavar="[URL]", envvar="GRISTMILL_SERVER")] = DEFAULT_SERVER,
    input_file: Annotated[Path | None, typer.Option("--input", help="A batch file that you want to run there.")] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Look at the Ray cluster of this head instead; auto: this machine's."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a server: is it reachable, alive, reusing prefixes, large enough? Exit code 1: there is a problem."""
    if input_file is not None:
        jsonl.check_readable(input_file)
    looked = examine(url, input_file) if ray_address is None else examine_ray(ray_address)
    findings: list[Finding] = []
    for finding in looked:
        findings.append(finding)
        if not as_json:
            show.print_finding(finding)
    if as_json:
        show.print_json(findings)
    if any(finding.verdict == "problem" for finding in findings):
        raise typer.Exit(1)
