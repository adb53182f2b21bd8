"""Who looks at a page, and what they may see: the one place where pages get at batches."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from fastapi import Request

from gristmill.access.caller import Role, caller_of
from gristmill.batches.scoped_host import ScopedHost
from gristmill.telemetry.throughput import Sample
from gristmill.web.dashboard import Dashboard
from gristmill.wire.batch import Batch


def dashboard(request: Request) -> Dashboard:
    found: Dashboard = request.app.state.dashboard
    return found


def host(request: Request) -> ScopedHost:
    """As the visitor has it."""
    return ScopedHost(request.app.state.host, caller_of(request.scope).scope)


def seen_by(request: Request) -> Hashable:
    """Equal for those whose pages are the same."""
    scope = caller_of(request.scope).scope
    return ("everything" if scope.everything else scope.key_id), may_change(request)


def may_change(request: Request) -> bool:
    """Whether anything, so that a page offers it."""
    return caller_of(request.scope).role is not Role.READ_ONLY


def throughput(request: Request, batches: Iterable[Batch]) -> list[Sample]:
    """Of all that may be seen; for who does not see everything, of ``batches``."""
    found = request.app.state.host.throughput
    everything = caller_of(request.scope).scope.everything
    samples: list[Sample] = found.all() if everything else found.of(batch.id for batch in batches)
    return samples


def throughput_of(request: Request, batch_id: str) -> list[Sample]:
    """Of one batch, which the visitor has been found to see."""
    found: list[Sample] = request.app.state.host.throughput.of_one(batch_id)
    return found


async def names(request: Request, batches: Iterable[Batch]) -> dict[str, str]:
    """What people call each batch, by id: what its metadata says, or its input file; empty where neither is known."""
    scope = caller_of(request.scope).scope
    reader = None if scope.everything else scope.key_id
    file_name = dashboard(request).file_name
    return {batch.id: _own_name(batch) or await file_name(batch.input_file_id, reader) for batch in batches}


def _own_name(batch: Batch) -> str:
    metadata = batch.metadata or {}
    return next((metadata[key] for key in ("name", "title", "description") if metadata.get(key)), "")
