"""The command ``gristmill``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import gristmill
from gristmill.cli import (
    admin,
    ask,
    batches,
    bench,
    calibrate,
    completion,
    doctor,
    files,
    models,
    plan,
    rank,
    run,
    score,
    serve,
    verify_score,
    webhooks,
)
from gristmill.cli.config import load_defaults
from gristmill.printable import printable_lines
from gristmill.user_error import UserError

app = typer.Typer(
    help="Huge batches of LLM requests that share most of their prompt, on machines you own.",
    no_args_is_help=True,
    # Our own is right in each shell: see ``completion``.
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(run.run)
app.command(cls=verify_score.ScoreCommand)(score.score)
app.command()(calibrate.calibrate)
app.command()(rank.rank)
app.command()(ask.ask)
app.command()(doctor.doctor)
app.command()(bench.bench)
app.command()(plan.plan)
app.command()(completion.completion)
app.add_typer(admin.app, name="admin")
app.add_typer(batches.app, name="batches")
app.add_typer(files.app, name="files")
app.add_typer(models.app, name="models")
app.add_typer(webhooks.app, name="webhooks")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"gristmill {gristmill.__version__}")
        raise typer.Exit


@app.callback()
def configure(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(envvar="GRISTMILL_CONFIG", help="Settings file; ./gristmill.toml if it exists.")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.default_map = load_defaults(config, _settings(context.command))


def _settings(command: Any) -> dict[str, Any]:
    """The names of the settings of every command: a list for a command, a dict of lists for a group."""
    return {
        name: _settings(found) if hasattr(found, "commands") else [each.name for each in found.params]
        for name, found in getattr(command, "commands", {}).items()
    }


def main() -> None:
    """Run the command; an error a person can mend is one sentence on standard error and its exit code."""
    _open_closed_streams()
    try:
        app()
    except UserError as error:
        print(f"Error: {printable_lines(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        _let_go_of_closed_streams()


def _let_go_of_closed_streams() -> None:
    """Output that nobody takes any more must not turn a clean end into Python's exit code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _open_closed_streams() -> None:
    """Started without a standard stream (``2>&-``), the first file we open would take its place, and its messages."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, mode))  # noqa: PTH123, SIM115 - for the life of the process
