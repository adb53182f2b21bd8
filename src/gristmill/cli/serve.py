"""``gristmill serve``."""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Annotated, TextIO

import typer

from gristmill.cli import config, webhook_options
from gristmill.telemetry import log
from gristmill.user_error import NotNow, UserError


def serve(
    host: Annotated[
        str, typer.Option(envvar="GRISTMILL_HOST", help="Address to listen on; 0.0.0.0 for the whole network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="GRISTMILL_PORT", min=0, max=65535, help="0 takes a free one.")] = 4080,
    data: config.Data = None,
    engine: config.EngineName = config.AUTOMATIC,
    model: config.Model = None,
    url: config.Url = None,
    engine_option: config.EngineOptions = None,
    replicas: config.Replicas = None,
    replica_engine: config.ReplicaEngine = None,
    ray_address: config.RayAddress = None,
    alias: config.Aliases = None,
    database: config.Database = None,
    blobs: config.Blobs = None,
    concurrency: config.Concurrency = None,
    request_timeout: config.RequestTimeout = 600.0,
    stop_grace: Annotated[
        float, typer.Option(envvar="GRISTMILL_STOP_GRACE", min=0, help="Seconds for requests in flight at a stop.")
    ] = 20.0,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            envvar="GRISTMILL_ALLOWED_HOST",
            help="A name clients may address the server by, besides its addresses and its machine's name; .NAME: "
            "all names below it; *: any.",
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            envvar="GRISTMILL_ALLOWED_ORIGIN",
            help="A web page's origin that may call the server, such as http://localhost:3000; *: any. [none]",
        ),
    ] = None,
    keys: Annotated[
        bool | None,
        typer.Option(
            "--keys/--no-keys",
            envvar="GRISTMILL_KEYS",
            help="Whether callers need a key. [only where others than this machine can reach the server]",
        ),
    ] = None,
    max_connections: Annotated[
        int, typer.Option(envvar="GRISTMILL_MAX_CONNECTIONS", min=1, help="Clients' connections; a 503 beyond.")
    ] = 1024,
    keep_ended_batches: Annotated[
        str | None,
        typer.Option(
            envvar="GRISTMILL_KEEP_ENDED_BATCHES",
            help="How long ended batches can be looked at: minutes, hours or days, such as 30d. [for ever]",
        ),
    ] = None,
    webhook: webhook_options.OwnUrl = None,
    webhook_secret_file: webhook_options.SecretFile = None,
    allow_webhook_host: webhook_options.AllowedHosts = None,
    log_level: config.LogLevel = "info",
    log_json: Annotated[bool, typer.Option(envvar="GRISTMILL_LOG_JSON", help="Log JSON lines.")] = False,
    log_content: Annotated[
        bool,
        typer.Option(
            envvar="GRISTMILL_LOG_CONTENT",
            help="Let the log repeat what errors say in full, which may be parts of prompts and answers.",
        ),
    ] = False,
    traces: Annotated[
        str | None,
        typer.Option(
            envvar="GRISTMILL_TRACES",
            help="An OpenTelemetry collector to send spans to, such as http://127.0.0.1:4318. [as OTEL_... say]",
        ),
    ] = None,
    trace_rows: Annotated[
        float, typer.Option(envvar="GRISTMILL_TRACE_ROWS", min=0, max=1, help="Share of the rows that get a span.")
    ] = 0.01,
) -> None:
    """Serve the OpenAI Batch API."""
    # Imported here, so that the commands that only ask a server start in half the time.
    from gristmill.api.server import ServerSettings, Started
    from gristmill.api.server import serve as serve_api
    from gristmill.batches.host import HostSettings
    from gristmill.telemetry.spans import SpanSettings

    wants_keys = not _is_loopback(host) if keys is None else keys
    log.configure(config.check_log_level(log_level), log_json, log_content)
    given = config.engine_settings(engine, model, url, engine_option)
    settings = ServerSettings(
        address=host,
        port=port,
        host=HostSettings(
            storage=config.storage_settings(data, database, blobs),
            engine=config.settled(config.pool_settings(given, replicas, replica_engine, ray_address)),
            concurrency=concurrency,
            request_timeout=request_timeout,
            stop_grace=stop_grace,
            keep_ended_batches=_seconds(keep_ended_batches),
            aliases=config.alias_settings(alias),
            spans=SpanSettings(traces, trace_rows),
            webhooks=webhook_options.settings(webhook, webhook_secret_file, allow_webhook_host),
        ),
        allowed_hosts=allowed_host or (),
        allowed_origins=allowed_origin or (),
        max_connections=max_connections,
        keys=wants_keys,
        first_key=not _is_journal(sys.stdout),
    )

    def announce(started: Started) -> None:
        if started.first_key is not None:
            # Not where the log goes: it is no place for a key.
            _show_first_key(started.first_key)
        elif started.keys == 0:
            log.announce(_NO_KEY_YET)
        elif started.keys is None and not _is_loopback(host):
            log.announce(_OPEN_TO_ALL.format(address=host))
        log.announce(f"Gristmill is ready: {started.base_url}")

    try:
        serve_api(settings, ready=announce)
    except NotNow as error:
        # For a service manager, which starts it again; a person who ran another command looks for themselves.
        error.exit_code = _ANOTHER_START
        raise


def _show_first_key(key: str) -> None:
    """A standard output that nobody takes any more stops no server."""
    try:
        print(_FIRST_KEY.format(key=key), flush=True)
    except OSError:
        log.announce(_KEY_NOT_SHOWN)


def _seconds(given: str | None) -> int | None:
    from gristmill.batches.lifecycle import window_seconds

    if given is None:
        return None
    seconds = window_seconds(given)
    if seconds is None:
        raise UserError(
            f"'{given}' is no time to keep batches: use a number of minutes, hours or days up to '366d' with "
            "--keep-ended-batches."
        )
    return seconds


#: EX_TEMPFAIL of sysexits.h.
_ANOTHER_START = 75

_FIRST_KEY = """\
This server asks for a key. The first one is yours, an admin's; it is shown this once:

    {key}

Clients: GRISTMILL_API_KEY for gristmill, api_key for SDKs; in a browser, log in with it. Keys for others:
'gristmill admin key add NAME' on this machine."""

_KEY_NOT_SHOWN = """\
This server asks for a key, and its first one could not be shown, as nobody reads standard output. Make another on this
machine, with the same --data as here: gristmill admin key add NAME --role admin"""

_NO_KEY_YET = """\
This server asks for a key, and there is none. Make one on this machine, with the same --data as here:
gristmill admin key add NAME --role admin"""

_OPEN_TO_ALL = (
    "WARNING: --no-keys on {address}: everybody who can reach this machine can run requests, and read and delete every "
    "file and batch."
)


def _is_journal(stream: TextIO) -> bool:
    """Whether systemd's journal keeps what is written there."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
