"""Settings from ``gristmill.toml``: one table a command, the flags' names as keys. Flags and environment beat it.

[serve]
port = 4080
engine = "openvino"

[serve.engine-options]      # any engine option
latency = "0.1"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gristmill.engines.registry import ENGINES, EngineSettings
from gristmill.user_error import UserError

_DEFAULT_FILE = Path("gristmill.toml")


def load_defaults(path: Path | None, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Default option values by command; a group's table holds for all its commands, [group.command] for one.

    Raises UserError for a file that is missing or not TOML.
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
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UserError(f"In {file}, '{name}' stands outside a table: put it under [serve], [run] or [batches].")
    return {name: _group(table, groups[name]) if name in groups else _flags(table) for name, table in tables.items()}


def _group(table: dict[str, Any], commands: Sequence[str]) -> dict[str, Any]:
    shared = _flags({key: value for key, value in table.items() if key not in commands})
    return {command: shared | _flags(table.get(command, {})) for command in commands}


def _flags(table: dict[str, Any]) -> dict[str, Any]:
    flags = {key.replace("-", "_"): value for key, value in table.items()}
    options = flags.pop("engine_options", None)
    if isinstance(options, dict):
        flags["engine_option"] = [f"{key}={value}" for key, value in options.items()]
    return flags


EngineName = Annotated[
    str, typer.Option("--engine", envvar="GRISTMILL_ENGINE", help=f"What computes: {', '.join(ENGINES)}.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        envvar="GRISTMILL_MODEL",
        help="A name the engine serves; for openvino also a GGUF file or an IR folder.",
    ),
]
Url = Annotated[str | None, typer.Option("--url", envvar="GRISTMILL_URL", help="The engine's address, if it has one.")]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option("--engine-option", "-O", envvar="GRISTMILL_ENGINE_OPTIONS", help="KEY=VALUE for the engine."),
]
Concurrency = Annotated[
    int | None,
    typer.Option(envvar="GRISTMILL_CONCURRENCY", min=1, max=4096, help="Requests in flight; the engine's own choice."),
]
RequestTimeout = Annotated[
    float, typer.Option(envvar="GRISTMILL_REQUEST_TIMEOUT", min=0.1, help="Seconds one request may take.")
]
LogLevel = Annotated[str, typer.Option(envvar="GRISTMILL_LOG_LEVEL", help="debug, info, warning or error.")]


def engine_settings(engine: str, model: str | None, url: str | None, options: list[str] | None) -> EngineSettings:
    pairs = {}
    for option in options or []:
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(f"The engine option '{option}' is not KEY=VALUE.")
        pairs[key.strip().replace("-", "_")] = value
    return EngineSettings(engine, model, url, pairs)


def check_log_level(level: str) -> str:
    if level.lower() not in ("debug", "info", "warning", "error"):
        raise UserError(f"The log level '{level}' is none of debug, info, warning, error.")
    return level.lower()
