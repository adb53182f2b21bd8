"""Settings from ``gristmill.toml``: one table a command, the flags' names as keys. Flags and environment beat it.

[serve]
port = 4080
engine = "openvino"

[serve.engine-options]      # any engine option
latency = "0.1"

[serve.aliases]             # what asks for one is answered by the other
gpt-4o-mini = "smollm2-135m-instruct"
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli import show
from gristmill.engines.choice import AUTOMATIC as AUTOMATIC
from gristmill.engines.registry import ENGINES, EngineSettings, with_engine
from gristmill.printable import printable
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from gristmill.storage.open import StorageSettings

_UNITS = {"s": 1, "m": 60, "h": 3600}
_DEFAULT_FILE = Path("gristmill.toml")


#: The names of a command's settings; for a group, those of each of its commands.
Settings = Mapping[str, "Sequence[str] | Settings"]


def load_defaults(path: Path | None, settings: Settings) -> dict[str, Any]:
    """Default option values by command; a group's table holds for all its commands, [group.command] for one.

    Raises UserError for a file that is missing or not TOML, and for a setting that no command has.
    """
    file = path or _DEFAULT_FILE
    if path is None and not file.exists():
        return {}
    try:
        tables = tomllib.loads(file.read_text())
    except OSError as error:
        raise UserError(f"The settings file {file} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The settings file {file} is not valid TOML: {error}.") from None
    # Those who look after what a server keeps mean the same as the server.
    if shared := {key: value for key, value in _mapping(tables.get("serve")).items() if key in _STORAGE}:
        tables["admin"] = shared | _mapping(tables.get("admin"))
    try:
        return {name: _table(name, table, settings) for name, table in tables.items()}
    except _Unknown as error:
        raise UserError(f"In {file}, {error}") from None


class _Unknown(Exception):
    pass


def _table(name: str, table: Any, settings: Settings) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise _Unknown(f"'{name}' stands outside a table: put it under [serve], [run] or [batches].")
    known = settings.get(name)
    if known is None:
        raise _Unknown(f"the table [{name}] is for no command. Tables are: {', '.join(settings)}.")
    if isinstance(known, Mapping):
        return _group(name, table, known)
    return _flags(name, table, known)


def _group(name: str, table: dict[str, Any], commands: Settings) -> dict[str, Any]:
    shared = {key: value for key, value in table.items() if key not in commands}
    _flags(name, shared, list(_all_flags(commands)))
    found = {}
    for command, flags in commands.items():
        known = _all_flags(flags)
        given = {**{key: value for key, value in shared.items() if _flag(key) in known}, **table.get(command, {})}
        found[command] = _group(name, given, flags) if isinstance(flags, Mapping) else _flags(name, given, flags)
    return found


def _all_flags(settings: Sequence[str] | Settings) -> set[str]:
    """Of a command, or of all commands of a group."""
    if isinstance(settings, Mapping):
        return {flag for each in settings.values() for flag in _all_flags(each)}
    return set(settings)


def _flags(name: str, table: dict[str, Any], known: Sequence[str]) -> dict[str, Any]:
    flags = {_flag(key): value for key, value in table.items()}
    for plural, flag in (("engine_options", "engine_option"), ("aliases", "alias")):
        if flag in known and isinstance(pairs := flags.get(plural), dict):
            del flags[plural]
            flags[flag] = [f"{key}={value}" for key, value in pairs.items()]
    for flag in flags:
        if flag not in known:
            names = ", ".join(sorted(each.replace("_", "-") for each in known))
            raise _Unknown(f"[{name}] has no setting '{flag.replace('_', '-')}'. It has: {names}.")
    return flags


#: Where a server keeps what it stores.
_STORAGE = ("data", "database", "blobs")


def _mapping(table: Any) -> dict[str, Any]:
    return table if isinstance(table, dict) else {}


def _flag(key: str) -> str:
    return key.replace("-", "_")


def default_data_folder() -> Path:
    return Path.home() / ".local" / "share" / "gristmill"


EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        envvar="GRISTMILL_ENGINE",
        help=f"What answers the requests: {', '.join(ENGINES)}. auto: the fastest here that can load the model.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        envvar="GRISTMILL_MODEL",
        help="A name the engine serves; without a server a pulled model, ollama:NAME, a GGUF file or an IR folder.",
    ),
]
Url = Annotated[str | None, typer.Option("--url", envvar="GRISTMILL_URL", help="The engine's address, if it has one.")]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option("--engine-option", "-O", envvar="GRISTMILL_ENGINE_OPTIONS", help="KEY=VALUE for the engine."),
]
Replicas = Annotated[
    str | None,
    typer.Option(envvar="GRISTMILL_REPLICAS", help="With --engine ray: how many, or 2:8 where the cluster may grow."),
]
ReplicaEngine = Annotated[
    str | None,
    typer.Option(envvar="GRISTMILL_REPLICA_ENGINE", help="With --engine ray: the engine in each replica."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        envvar="GRISTMILL_RAY_ADDRESS",
        help="HOST:PORT of a Ray cluster's head; auto: the one this machine is in. [a local one]",
    ),
]
Aliases = Annotated[
    list[str] | None,
    typer.Option("--alias", envvar="GRISTMILL_ALIAS", help="NAME=MODEL: what asks for NAME is answered by MODEL."),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        envvar="GRISTMILL_CONCURRENCY",
        min=1,
        max=4096,
        help="Requests in flight; by default the engine's choice.",
    ),
]
RequestTimeout = Annotated[
    float, typer.Option(envvar="GRISTMILL_REQUEST_TIMEOUT", min=0.1, help="Seconds that one request may take.")
]
ReuseAnswers = Annotated[
    bool,
    typer.Option("--reuse-answers", help="Reuse earlier batches' answers to the same questions; keep these."),
]
Wait = Annotated[
    str, typer.Option("--wait", envvar="GRISTMILL_WAIT", help="How long to wait for the engine to start: 90s, 10m, 2h.")
]
Data = Annotated[
    Path | None, typer.Option(envvar="GRISTMILL_DATA", help="Where batches live. [~/.local/share/gristmill]")
]
Database = Annotated[
    str | None,
    typer.Option(
        envvar="GRISTMILL_DATABASE", help="sqlite:///PATH, or postgresql://USER@HOST/DATABASE. [in the data folder]"
    ),
]
Blobs = Annotated[
    str | None,
    typer.Option(
        envvar="GRISTMILL_BLOBS",
        help="Folder of the files, or s3://BUCKET/PREFIX, gs:// or az://. [in the data folder]",
    ),
]
Currency = Annotated[str, typer.Option(metavar="CODE", help="Of the prices, such as USD or EUR.")]
LogLevel = Annotated[str, typer.Option(envvar="GRISTMILL_LOG_LEVEL", help="debug, info, warning or error.")]


def settled(settings: EngineSettings) -> EngineSettings:
    """With an engine, and a word on it where none was named. Raises UserError."""
    settings, chosen = with_engine(settings)
    if chosen is not None:
        show.console.print(printable(chosen))
    return settings


def unsettled(settings: EngineSettings) -> EngineSettings:
    """For what computes nothing here."""
    return settings


def engine_settings(engine: str, model: str | None, url: str | None, options: list[str] | None) -> EngineSettings:
    """As they were given. Raises UserError."""
    pairs = {}
    for option in options or []:
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"The engine option '{option}' is not KEY=VALUE.")
        pairs[key.strip().replace("-", "_")] = value
    return EngineSettings(engine, model, url, pairs)


def pool_settings(
    settings: EngineSettings, replicas: str | None, replica_engine: str | None, ray_address: str | None
) -> EngineSettings:
    """With what was said of a pool of replicas. Raises UserError where there is none."""
    given = {"replicas": replicas, "replica_engine": replica_engine, "ray_address": ray_address}
    said = {key: value for key, value in given.items() if value is not None}
    if said and settings.engine != "ray":
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in said)
        raise UserError(f"{flags}: only for a pool of replicas, which is --engine ray.")
    return settings._replace(options={**settings.options, **said})


def storage_settings(data: Path | None, database: str | None, blobs: str | None) -> StorageSettings:
    # Imported here, so that the commands that only ask a server start in half the time.
    from gristmill.storage.open import StorageSettings

    return StorageSettings(data or default_data_folder(), database, blobs)


def alias_settings(given: list[str] | None) -> dict[str, str]:
    """Raises UserError."""
    aliases: dict[str, str] = {}
    for each in given or []:
        alias, _, model = (part.strip() for part in each.partition("="))
        if not alias or not model:
            raise UserError(f"The alias '{each}' is not NAME=MODEL, such as gpt-4o-mini=smollm2-135m-instruct.")
        if aliases.setdefault(alias, model) != model:
            raise UserError(f"The alias '{alias}' is given for two models: {aliases[alias]} and {model}.")
    return aliases


#: What changes how long a job takes, and how it is told of, but nothing that comes of it.
_NO_PART_OF_A_JOB = frozenset(("as_json", "concurrency", "log_level", "request_timeout", "wait"))


def arguments(context: typer.Context, *inputs: Path) -> dict[str, Any]:
    """What the running command was given that matters to what comes of it, and which ``inputs`` it read: the same again
    is the same job."""
    given = {name: str(value) for name, value in context.params.items() if name not in _NO_PART_OF_A_JOB}
    for path in inputs:
        if path.is_file():
            status = path.stat()
            given[str(path.resolve())] = f"{status.st_size} {status.st_mtime_ns}"
    # An address among them may hold a password.
    return {"arguments": hashlib.sha256(repr(sorted(given.items())).encode()).hexdigest()}


def wait_seconds(duration: str, option: str) -> float:
    """Of a duration such as 90s, 10m or 2h. Raises UserError."""
    number, unit = duration[:-1], duration[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdecimal()):
        raise UserError(f"{option} takes a duration such as 90s, 10m or 2h, not '{duration}'.")
    return float(number) * _UNITS[unit]


def check_log_level(level: str) -> str:
    if level.lower() not in ("debug", "info", "warning", "error"):
        raise UserError(f"The log level '{level}' is none of debug, info, warning, error.")
    return level.lower()
