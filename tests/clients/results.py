"""What a run found: one record a client, kept as docs/reference/clients.json, from which the table is made."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

#: ``passed`` and ``failed`` as they say; ``cannot``: it fails, and the script names why that is so.
Outcome = Literal["passed", "failed", "cannot"]


class CallResult(msgspec.Struct):
    """One call of a client. ``requests`` are what it sent, such as ``POST /v1/responses``, each once, in order."""

    call: str
    engine: str
    outcome: Outcome
    reason: str
    requests: list[str]


class ClientResult(msgspec.Struct):
    """One client. ``versions`` are its packages; ``setup`` is how it was pointed at the server; ``tried`` is a day."""

    client: str
    versions: dict[str, str]
    setup: str
    tried: str
    gristmill: str
    calls: list[CallResult]


class Receipt(msgspec.Struct):
    """All clients, by name. ``runtimes`` are the languages' versions."""

    runtimes: dict[str, str]
    clients: dict[str, ClientResult]


def load(path: Path) -> Receipt:
    """The results so far, or none."""
    return msgspec.json.decode(path.read_bytes(), type=Receipt) if path.exists() else Receipt({}, {})


def save(receipt: Receipt, path: Path) -> None:
    receipt.clients = dict(sorted(receipt.clients.items()))
    path.write_bytes(msgspec.json.format(msgspec.json.encode(receipt), indent=1) + b"\n")
