"""What answered the rows of a pass, as far as it is known: kept beside the pass, so that a receipt can say it after any
number of restarts."""

from __future__ import annotations

import asyncio
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

import gristmill
from gristmill.batches.job_folder import write_whole
from gristmill.engines.embedded.processor import processor_digest, processor_name
from gristmill.engines.errors import EngineError
from gristmill.engines.protocol import Engine
from gristmill.engines.registry import EMBEDDED, EngineSettings
from gristmill.http_values import shown
from gristmill.user_error import UserError

_NOTE = "computed.json"
#: Engines whose options say no more than how they compute.
_OPTIONS_TOLD = ("openvino", "llama_cpp", "simulated")
#: Packages whose version may decide bits, by engine.
_PACKAGES = {"openvino": ("openvino", "openvino-tokenizers", "numpy"), "llama_cpp": ("xllamacpp", "numpy")}


class Computation(msgspec.Struct, frozen=True, omit_defaults=False):
    """None is what is not known; ``unknown`` says so in words.

    ``source``: the model as the user called it, ``model``: as requests do. ``fingerprint``: of the model's files
    (SHA-256), its defaults and the options that change answers. ``chat_template``: SHA-256 of its text. ``build``: the
    engine's library and kernels, and what of the processor chooses among them. ``processor``: its name, and a digest
    with all of its features. ``packages``: versions.
    """

    engine: str | None
    place: str
    model: str
    source: str | None = None
    url: str | None = None
    options: dict[str, str] = {}
    fingerprint: str | None = None
    chat_template: str | None = None
    computes_on: str | None = None
    precision: str | None = None
    build: str | None = None
    threads: int | None = None
    processor: str | None = None
    packages: dict[str, str] = {}
    reused_answers: bool = False
    unknown: str | None = None


async def computation_here(
    engine: Engine, settings: EngineSettings, model: str, place: str, reused_answers: bool
) -> Computation:
    """Of an engine that has started."""
    computing = engine.capabilities.computing
    embedded = engine.name in EMBEDDED
    try:
        fingerprint = await engine.fingerprint()
    except (EngineError, UserError, OSError):
        # That it cannot be told just now keeps no row from being scored.
        fingerprint = None
    threads = computing.threads if computing is not None else None
    return Computation(
        engine.name,
        place,
        model,
        settings.model,
        _without_names(settings.url),
        dict(settings.options),
        fingerprint,
        computing.chat_template if computing is not None else None,
        computing.on if computing is not None else None,
        computing.precision if computing is not None else None,
        computing.build if computing is not None else None,
        threads,
        f"{await asyncio.to_thread(processor_name)} ({processor_digest()})" if embedded else None,
        _versions(engine.name),
        reused_answers,
        None if embedded or engine.name == "simulated" else _unknown(fingerprint),
    )


async def computation_of_server(
    engine: Engine, settings: EngineSettings, model: str, one_of_several: bool
) -> Computation:
    """Of the engine of this process, a server, for those who score on it. What only its operator knows stays here:
    addresses, files, and the options of other programs. ``one_of_several``: others may have run the batch."""
    found = await computation_here(engine, settings, model, f"on a Gristmill server ({engine.name} engine)", False)
    source = settings.model if settings.model is not None and not _is_file(settings.model) else model
    own = {key: value for key, value in settings.options.items() if not _is_file(value)}
    unknown = found.unknown
    if one_of_several:
        unknown = (
            "The server is one of several that share their batches: this is the engine of the one where the table was "
            "scored, and another may have computed some rows."
        )
    return msgspec.structs.replace(
        found, source=source, url=None, options=own if engine.name in _OPTIONS_TOLD else {}, unknown=unknown
    )


def _is_file(value: str) -> bool:
    return value.startswith(("/", ".", "~")) or (value != "" and Path(value).exists())


def computation_there(server: str, model: str, place: str, reused_answers: bool) -> Computation:
    """Of a server that we ask."""
    return Computation(
        None, place, model, model, _without_names(server), packages=_versions(None), reused_answers=reused_answers,
        unknown=_unknown(None),
    )  # fmt: skip


def _without_names(urls: str | None) -> str | None:
    """A receipt goes wherever its table does: it keeps no password. Several are separated by commas."""
    return None if urls is None else ",".join(map(shown, urls.split(",")))


def note_computation(folder: Path, computation: Computation) -> None:
    """For a pass that is kept in ``folder``."""
    noted = _read(folder / _NOTE)
    if computation not in noted:
        write_whole(folder / _NOTE, msgspec.json.encode([*noted, computation]))


def computations_in(folder: Path, without: Path | None = None) -> list[Computation]:
    """Of all passes in ``folder``, each once; those in the folder ``without`` are left out."""
    found: list[Computation] = []
    for path in sorted(folder.rglob(_NOTE)):
        if without is None or not path.is_relative_to(without):
            found += [each for each in _read(path) if each not in found]
    return found


def _read(path: Path) -> list[Computation]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Computation])
    except FileNotFoundError:
        return []


def _unknown(fingerprint: str | None) -> str:
    weights = "" if fingerprint else "which weights and chat template it has, "
    return f"The server does not say {weights}what computes there, with which library, in which numbers and threads."


def _versions(engine: str | None) -> dict[str, str]:
    found = {"gristmill": gristmill.__version__, "python": platform.python_version()}
    for package in _PACKAGES.get(engine or "", ()):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
