"""``gristmill models``: the models of the embedded engines, in the user's cache folder, and Ollama's."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from gristmill.cli import model_prefixes, show
from gristmill.engines.choice import MachineFacts, Runnable, engine_of, machine_facts
from gristmill.engines.embedded.support import ModelFacts, read_model_facts
from gristmill.models.catalog import CATALOG
from gristmill.models.defaults import Parameters
from gristmill.models.describe import ModelDescription, ModelRow, describe, known_models
from gristmill.models.locate import locate
from gristmill.models.ollama.name import PREFIX as OLLAMA
from gristmill.models.ollama.name import parse_name
from gristmill.models.ollama.rewritten import copies_of, remove_copies
from gristmill.models.ollama.store import hidden_folders
from gristmill.models.progress import Report, human_size
from gristmill.models.pull import pull
from gristmill.models.remove import Removal, find_removable, freed, remove
from gristmill.printable import printable
from gristmill.user_error import UserError

app = typer.Typer(no_args_is_help=True, help="Models of the embedded engines: pulled ones, and Ollama's.")

_JSON = typer.Option(False, "--json", help="Print JSON.")

app.command("prefixes")(model_prefixes.prefixes)


@app.command("list")
def list_command(json: bool = _JSON) -> None:
    """List the models that can be pulled by name, those that have been pulled, and Ollama's."""
    machine = machine_facts()
    rows = [(row, _engine_of(row, machine)) for row in known_models()]
    if json:
        show.print_json([msgspec.structs.asdict(row) | told._asdict() for row, told in rows])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("Name", "Size", "Quantisation", "Licence", "Source", "Here", "Engine"):
        table.add_column(heading, justify="right" if heading == "Size" else "left", overflow="fold")
    for row, told in rows:
        cells = (
            printable(row.name),
            human_size(row.size),
            printable(row.quantisation or ""),
            printable(row.licence or "not stated"),
            row.source,
            "yes" if row.pulled else "no",
            told.engine or "none",
        )
        table.add_row(*cells)
    show.print_table(table)
    for obstacle in dict.fromkeys(told.obstacle for _, told in rows if told.obstacle is not None):
        show.console.print(printable(obstacle))
    for hidden in hidden_folders():
        show.console.print(printable(str(hidden)))


def _engine_of(row: ModelRow, machine: MachineFacts) -> Runnable:
    """Of a model that is here by its files, as when it is run."""
    if not row.pulled:
        return engine_of(ModelFacts(row.name, row.kind, row.architecture, row.parameters), machine)
    try:
        return engine_of(read_model_facts(row.name, locate(row.name)), machine)
    except UserError as error:
        return Runnable(None, str(error))


@app.command("pull")
def pull_command(
    name: str = typer.Argument(
        help="A name from the list, organisation/repository[:file] on the hub, or a GGUF file or IR folder.",
    ),
    anyway: bool = typer.Option(False, "--anyway", help="Fetch even a model that no engine installed here can load."),
) -> None:
    """Fetch a model into the cache and check it. Its size is shown before the download starts."""
    if not anyway:
        _check_usable(name)
    try:
        with _report() as report:
            pulled = pull(name, report)
    except KeyboardInterrupt:
        show.console.print(
            f"Stopped. Run 'gristmill models pull {printable(name)}' again to finish; nothing is broken."
        )
        raise typer.Exit(130) from None
    show.print_text(str(pulled.path))


def _check_usable(name: str) -> None:
    """Of other models it is known only once they are here."""
    if name not in CATALOG:
        return
    model = CATALOG[name]
    told = engine_of(ModelFacts(name, "gguf", model.architecture), machine_facts())
    if told.obstacle is not None:
        raise UserError(
            f"{told.obstacle} To fetch its {human_size(model.download)} for another engine: gristmill models pull "
            f"{name} --anyway"
        )


@app.command("rm")
def rm_command(
    name: str = typer.Argument(help="A pulled model, as the list names it."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
) -> None:
    """Remove a pulled model from the cache, with what was converted from it, and its prefixes. Your own files stay, and
    Ollama's: of those, what was rewritten for llama.cpp goes."""
    if name.startswith(OLLAMA) and (copies := _rewritten(name)):
        _remove_rewritten(name, copies, yes)
        return
    removal = find_removable(name)
    folders = _converted(removal)
    prefixes = model_prefixes.of_pulled(removal.pulled)
    made = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    size = removal.size + sum(map(freed, made)) + sum(each.size for each in prefixes)
    if not yes:
        _ask(f"Remove {printable(name)} from {removal.pulled.folder} and free {human_size(size)}?")
    remove(removal, Report(lambda sentence: show.console.print(printable(sentence))))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    model_prefixes.remove(prefixes)
    show.print_text(f"Removed {printable(name)}: {human_size(size)} freed.")


def _converted(removal: Removal) -> list[Path]:
    if removal.pulled.receipt.kind != "gguf" or not removal.pulled.path.is_file():
        return []
    from gristmill.engines.embedded.openvino.prepare import converted

    return converted(removal.pulled.path) + copies_of(removal.pulled.receipt.name, removal.pulled.path)


def _rewritten(name: str) -> list[Path]:
    """Of a model of Ollama's, which may be gone."""
    own = name.removeprefix(OLLAMA)
    names = {own, str(parse_name(own))}
    try:
        path = locate(name).path
    except UserError:
        path = None
    return sorted({folder for each in names for folder in copies_of(each, path)})


def _remove_rewritten(name: str, copies: list[Path], yes: bool) -> None:
    shown = printable(name)
    size = sum(freed(file) for folder in copies for file in folder.iterdir())
    if not yes:
        _ask(
            f"Remove what was rewritten for llama.cpp of {shown} and free {human_size(size)}? Ollama's own file stays."
        )
    remove_copies(copies)
    show.print_text(f"Removed what was rewritten of {shown}: {human_size(size)} freed. Ollama's own file stays.")


def _ask(question: str) -> None:
    """Raises Exit where the answer is no, and UserError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise UserError(f"{question} Say so with --yes: there is no terminal to ask on.")
    if not typer.confirm(question, err=True):
        show.console.print("Nothing was removed.")
        raise typer.Exit(1)


@app.command("show")
def show_command(
    name: str = typer.Argument(help="A pulled model, ollama:NAME, a GGUF file or an OpenVINO IR folder."),
    json: bool = _JSON,
) -> None:
    """Show the facts of a model on this machine: licence, size, path, quantisation, architecture, context length."""
    facts = describe(name)
    if json:
        show.print_json(facts)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for label, value in _facts_shown(facts):
        if value is not None:
            table.add_row(label, printable(value))
    show.print_table(table)


def _facts_shown(facts: ModelDescription) -> Iterator[tuple[str, str | None]]:
    yield "Name", facts.name
    yield "Licence", facts.licence or "not stated"
    yield "Size", human_size(facts.size)
    yield "Path", facts.path
    yield "For llama.cpp", facts.rewritten
    yield "Format", {"gguf": "GGUF", "ir": "OpenVINO IR"}[facts.kind]
    yield "Architecture", facts.architecture
    yield "Quantisation", facts.quantisation
    yield "Parameters", f"{facts.parameters / 1e6:,.0f} million" if facts.parameters else None
    yield "Context length", f"{facts.context_length:,} tokens" if facts.context_length else None
    yield "Revision", facts.revision
    yield "Images by", facts.projector
    yield "Template", _template_shown(facts)
    yield "System message", facts.defaults.system
    yield "Defaults", ", ".join(_parameters_shown(facts.defaults.parameters)) or None


def _template_shown(facts: ModelDescription) -> str | None:
    if facts.defaults.renderer is not None:
        return f"Ollama's own code ('{facts.defaults.renderer}'); here only -O template=gguf"
    return "Ollama's" if facts.defaults.template is not None else None


def _parameters_shown(parameters: Parameters) -> Iterator[str]:
    for name, value in msgspec.structs.asdict(parameters).items():
        if value not in (None, ()):
            yield f"{name} {' '.join(map(repr, value)) if isinstance(value, tuple) else value}"


@contextmanager
def _report() -> Iterator[Report]:
    """Sentences on stderr; a bar below them when a person watches."""

    def say(sentence: str) -> None:
        show.console.print(printable(sentence))

    if not show.console.is_terminal:
        yield Report(say)
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=show.console, transient=True) as progress:
        task = progress.add_task("", total=None, visible=False)
        yield Report(say, lambda done, total: progress.update(task, completed=done, total=total, visible=True))
