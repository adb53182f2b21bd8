"""What a receipt may bring about on its own, as it may be anybody's: which files are read, where rows go, which model
is loaded, with which options. Whatever it may not, a person names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import msgspec

from gristmill.engines.choice import AUTOMATIC
from gristmill.engines.registry import ENGINES, EngineSettings
from gristmill.models.catalog import DEFAULT_MODEL
from gristmill.models.locate import find_pulled
from gristmill.models.ollama.name import PREFIX as OLLAMA
from gristmill.printable import printable
from gristmill.scoring.receipt import ScoreReceipt
from gristmill.scoring.table import table_files
from gristmill.user_error import UserError

#: Engines that open no file by a model's name. All others are taken to load one.
_LOADING_NONE = ("ollama", "openai_compatible", "simulated")
#: Engines that fetch a model by its name where it is not there.
_FETCHING = ("ray", "vllm")
#: No more than what is needed, so that nothing reads another host in it than this does.
_ADDRESS = re.compile(r"(https?://)?(?P<host>[\w.-]+|\[[0-9a-f:]+\])(:\d+)?(/[\w./~-]*)?", re.ASCII | re.IGNORECASE)
#: As Ollama marks models that it asks of its own servers.
_OLLAMA_CLOUD = re.compile(r"[:-]cloud\b", re.IGNORECASE)


class Computer(NamedTuple):
    """What scores again: an engine here, or the model of that name on a server."""

    engine: EngineSettings
    server: str | None


def table_named(receipt: Path, known: ScoreReceipt, given: str | None) -> str:
    """The table that was scored. Raises UserError."""
    return given or _in_its_folder(receipt, known.table.file, "table that was scored", "behind the receipt", "")


def scores_named(receipt: Path, known: ScoreReceipt, given: str | None) -> str:
    """The table with the scores. Raises UserError."""
    return given or _in_its_folder(receipt, known.scores.file, "table with the scores", "with -o", "-o ")


def computer_named(receipt: ScoreReceipt, given: EngineSettings, server: str | None) -> Computer:
    """``given``: what a person has said of the engine. Raises UserError."""
    if not receipt.computed:
        raise UserError("The receipt does not say what computed its scores: name an engine, with --engine and --model.")
    before = receipt.computed[-1]
    if server is not None:
        return Computer(EngineSettings(AUTOMATIC, given.model or before.model), server)
    if before.engine is None and given.engine == AUTOMATIC:
        _check_server(before.url)
        return Computer(EngineSettings(AUTOMATIC, given.model or before.model), before.url)
    engine = _engine_named(before.engine) if given.engine == AUTOMATIC and before.engine is not None else given.engine
    same = engine == before.engine
    options = (before.options if same else {}) | given.options
    url = given.url or (before.url if same else None)
    if given.url is None:
        _check_address(_several(url), "--url")
    _check_options(engine, options, given.options)
    if given.model is None:
        _check_model(engine, before.source, options)
    return Computer(EngineSettings(engine, given.model or before.source, url, options), None)


def _in_its_folder(receipt: Path, file: str | None, what: str, how: str, option: str) -> str:
    if file is None:
        raise UserError(f"The receipt {receipt} does not know the {what}: name it, {how}.")
    path = os.path.normpath(receipt.parent / file)
    folder = receipt.parent.resolve()
    inside = not Path(file).is_absolute() and not os.path.normpath(file).startswith("..")
    if inside and all(each.resolve().is_relative_to(folder) for each in table_files(path)):
        return path
    raise UserError(
        f"The {what} is {printable(path)} by the receipt, which is not in the receipt's own folder: name it, {how}, if "
        f"that is the file to be read: gristmill score --verify {printable(str(receipt))} {option}{printable(path)}"
    )


def _engine_named(name: str) -> str:
    """One that is chosen by what the model's files are would be chosen by whoever wrote the receipt."""
    known = [each for each in ENGINES if each != AUTOMATIC]
    if name in known:
        return name
    raise UserError(
        f"The scores came from the engine {printable(name)}, which is none of {', '.join(known)}: name one with "
        "--engine, and the model with --model."
    )


def _check_server(url: str | None) -> None:
    if url is None or not url.strip():
        raise UserError(
            "The receipt says that the scores came from a server, but does not say which server: name it with "
            "--server, or an engine here with --engine and --model."
        )
    _check_address([url], "--server")


def _several(urls: str | None) -> list[str]:
    return [url for url in (urls or "").split(",") if url.strip()]


def _check_address(urls: Sequence[str], option: str) -> None:
    if all(_is_here(url.strip()) for url in urls):
        return
    said = printable(",".join(urls))
    raise UserError(
        f"The scores came from {said}, which is another machine: add {option} {said} if rows of the table may be sent "
        "there."
    )


def _check_model(engine: str, source: str | None, options: Mapping[str, str]) -> None:
    said = f"The scores came from the model {printable(source or DEFAULT_MODEL)}"
    if source and engine in _FETCHING:
        raise UserError(
            f"{said}, which {engine} fetches where it is not there: add --model {printable(source)} if it may be "
            "loaded."
        )
    loading = options.get("replica_engine", engine) if engine == "ray" else engine
    if loading not in _LOADING_NONE:
        # Without a name engines load the default one, or what lies in the working folder under its name.
        name = source or DEFAULT_MODEL
        if not name.startswith(OLLAMA) and find_pulled(name) is None:
            raise UserError(
                f"{said}, which is none of those pulled here: pull it with 'gristmill models pull', or add --model "
                f"{printable(name)} if that is a file or folder of yours to be loaded."
            )
    if loading == "ollama" and source and _OLLAMA_CLOUD.search(source):
        raise UserError(
            f"{said}, which Ollama asks of other machines: add --model {printable(source)} if rows of the table may be "
            "sent there."
        )


def _check_options(engine: str, options: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Options of other programs may name files, clusters, and code to load; of embedded engines, those that are free
    texts do, as ``library``."""
    harmless = _chosen_or_counted(engine)
    if unsaid := {key: value for key, value in options.items() if key not in given and key not in harmless}:
        said = " ".join(f"-O {key}={value}" for key, value in unsaid.items())
        raise UserError(
            f"The scores were computed with options of the engine {engine} that a receipt alone does not set: add "
            f"{printable(said)} if you would choose them yourself."
        )


def _chosen_or_counted(engine: str) -> set[str]:
    """Options of an embedded engine that are one of several words, a number, or yes or no."""
    options: type[msgspec.Struct]
    if engine == "openvino":
        from gristmill.engines.embedded.openvino.engine import OpenVinoOptions as options
    elif engine == "llama_cpp":
        from gristmill.engines.embedded.llama_cpp.engine import LlamaCppOptions as options
    else:
        return set()
    return {field.name for field in msgspec.structs.fields(options) if field.type is not str}


def _is_here(url: str) -> bool:
    address = _ADDRESS.fullmatch(url)
    if address is None:
        return False
    host = address["host"].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
