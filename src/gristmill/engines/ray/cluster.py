"""What is asked of Ray itself: to connect, to find, make and end actors; and its errors, as sentences.

Calls of Ray's may wait for a minute where the head is away, so they are made in threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import msgspec

from gristmill.engines.ray.actor import Replica
from gristmill.engines.ray.frames import Connect
from gristmill.extras import require
from gristmill.user_error import UserError

NAMESPACE = "gristmill"
_REACH_SECONDS = 5.0
#: Groups of requests are small, and gone when they are answered.
_OBJECT_STORE_BYTES = 256 * 2**20
#: A replica's calls run side by side; there are never so many.
_MOST_CALLS = 10_000


def connect(address: str) -> None:
    """To the cluster at ``address``, or a new one on this machine where that is empty. Raises UserError."""
    # Nobody asked for reports to Ray's makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address:
        _use_token(os.environ)
    ray = require("ray", "ray")
    if address and address != "auto":
        _reach(address)
    common: dict[str, Any] = {
        "namespace": NAMESPACE, "log_to_driver": False, "configure_logging": True, "logging_level": logging.ERROR,
    }  # fmt: skip
    try:
        if address:
            ray.init(address=address, **common)
        else:
            ray.init(address="local", include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, **common)
    except Exception as error:
        where = f"The Ray cluster at {address}" if address else "A Ray cluster on this machine"
        if isinstance(error, RuntimeError) and "ersion mismatch" in str(error):
            raise UserError(f"{where} has other versions than this machine: {_one_line(error)}") from None
        if isinstance(error, ConnectionError) and address == "auto":
            raise UserError(
                "This machine belongs to no running Ray cluster: start one with ray start --head."
            ) from None
        advice = " This machine must belong to it: ray start --address HOST:PORT --num-cpus 0." if address else ""
        if isinstance(error, ConnectionError) and "RAY_AUTH_MODE" not in os.environ:
            # What it was refused for is in Ray's log only.
            advice += (
                " If it asks for a token, put what 'ray get-auth-token' says on its head into ~/.ray/auth_token, or "
                "set RAY_AUTH_TOKEN."
            )
        raise UserError(f"{where} cannot be used: {_one_line(error).rstrip('.')}.{advice}") from None


def _use_token(environment: MutableMapping[str, str]) -> None:
    """A cluster that ``ray start`` made where there was a token asks for it, but ``ray.init`` sends none to a cluster
    that is there, unless it is told to. Where and how Ray keeps tokens: its page on token authentication."""
    file = environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token"
    if environment.get("RAY_AUTH_TOKEN") or Path(file).is_file():
        environment.setdefault("RAY_AUTH_MODE", "token")


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"'{address}' is not the address of a Ray cluster's head: write it like 10.0.0.1:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise UserError(
            f"The Ray cluster at {address} cannot be reached ({reason}): is its head running, and is this its port?"
        ) from None


def find_or_make(wanted: Connect, name: str) -> Any:
    """The actor of that name."""
    ray = require("ray", "ray")
    replica = wanted.replica
    return (
        ray.remote(Replica)
        .options(
            name=name, namespace=NAMESPACE, get_if_exists=True,
            lifetime="detached", max_restarts=-1, max_task_retries=0,
            num_cpus=replica.cpus, num_gpus=replica.gpus, scheduling_strategy="SPREAD", max_concurrency=_MOST_CALLS,
        )
        .remote(msgspec.json.encode(replica), wanted.patience.stale, wanted.patience.abandoned)
    )  # fmt: skip


def end(actor: Any) -> None:
    """For good."""
    with contextlib.suppress(Exception):
        require("ray", "ray").kill(actor, no_restart=True)


def restart(actor: Any) -> None:
    with contextlib.suppress(Exception):
        require("ray", "ray").kill(actor, no_restart=False)


def replicas() -> dict[str, Any]:
    """The actors of all pools, by name."""
    ray = require("ray", "ray")
    found = {}
    for each in ray.util.list_named_actors(all_namespaces=True):
        if each["namespace"] == NAMESPACE:
            with contextlib.suppress(ValueError):
                found[each["name"]] = ray.get_actor(each["name"], NAMESPACE)
    return dict(sorted(found.items()))


def is_another() -> bool:
    """Whether the head that is there now does not know this process: it is that of another cluster than was connected
    to, though it may be at the same address."""
    ray = require("ray", "ray")
    try:
        # Ray remembers actors by name, and would not ask the head for one.
        ray.util.list_named_actors(all_namespaces=True)
    except ray.exceptions.AuthenticationError:
        return True
    except Exception:
        return False
    return False


def needs(wanted: Connect) -> str:
    """What one replica takes of the cluster, in words."""
    replica = wanted.replica
    return f"a replica with {_counted(replica.cpus, 'CPU')} and {_counted(replica.gpus, 'GPU')}"


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"


def no_place(wanted: Connect) -> str:
    """The sentence for it."""
    ray = require("ray", "ray")
    try:
        has, free = ray.cluster_resources(), ray.available_resources()
    except Exception as error:
        return sentence_of(error)
    counted = [f"{_counted(has.get(kind, 0), kind)} ({free.get(kind, 0):g} free)" for kind in ("CPU", "GPU")]
    return (
        f"The Ray cluster has had no place for {needs(wanted)} for {wanted.placement_wait:g} seconds: it has "
        f"{' and '.join(counted)}. Ask for less with -O replica_cpus=N, -O replica_gpus=N and --replicas, add nodes, "
        "or wait longer with -O placement_wait=SECONDS."
    )


def is_gone(error: BaseException) -> bool:
    """Whether it says that an actor's process is: of one that Ray starts again, it says that it is unavailable."""
    return isinstance(error, require("ray", "ray").exceptions.RayActorError)


def sentence_of(error: BaseException) -> str:
    ray = require("ray", "ray")
    if isinstance(error, ray.exceptions.RaySystemError | ray.exceptions.RayTaskError) and "ModuleNotFoundError" in str(
        error
    ):
        return "Gristmill is not installed on the Ray cluster's nodes: run pip install 'gristmill[ray]' there."
    return f"A replica on the Ray cluster is away: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    """Ray's errors have many lines, of which the first says what is wrong, and the following ones of which versions."""
    words = " ".join(str(error).split()) or repr(error)
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"


_LONGEST = 400
