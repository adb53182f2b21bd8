"""Forgetting what ended long ago, and giving its space to the disk, beside a server or without one."""

from __future__ import annotations

import contextlib
import time
from typing import NamedTuple

from gristmill.storage.answers import AnswerStore
from gristmill.storage.errors import StorageError
from gristmill.storage.housekeeping import erase_deleted, forget_batches, give_back, tidy
from gristmill.storage.open import Places, StorageSettings, open_beside, places
from gristmill.storage.protocol import Storage
from gristmill.storage.upkeep_protocol import Prunable
from gristmill.user_error import UserError


class Pruned(NamedTuple):
    """``found`` is what is forgotten, or would be: its files only where they were asked for. The others in bytes:
    ``database`` is what the database has given to the disk, or could give now; ``kept_back`` what it could not, as an
    earlier version has made it and a server runs."""

    found: Prunable
    database: int
    kept_back: int


async def prune(settings: StorageSettings, ended_before: int, with_files: bool, dry_run: bool) -> Pruned:
    """``ended_before`` in Unix seconds. Raises UserError."""
    where = places(settings)
    try:
        async with open_beside(settings) as storage:
            found = await storage.metadata.upkeep.prunable(ended_before)
            if not with_files:
                found = found._replace(files=0, file_bytes=0)
            if dry_run:
                sizes = await storage.metadata.upkeep.sizes()
                return Pruned(found, sizes.free, 0)
            if with_files:
                await storage.metadata.upkeep.delete_files_of(ended_before)
            await forget_batches(storage, ended_before)
            database, kept_back = await _free(storage, where, AnswerStore(where.answers), ended_before)
            return Pruned(found, database, kept_back)
    except StorageError as error:
        raise UserError(f"The data could not be pruned: {error}") from error


async def _free(storage: Storage, where: Places, answers: AnswerStore, ended_before: int) -> tuple[int, int]:
    upkeep, now = storage.metadata.upkeep, int(time.time())
    with contextlib.ExitStack() as held:
        alone = where.alone(held)
        if alone:
            await tidy(storage, now)
        else:
            # What a server is about to write is not ours to free.
            await storage.metadata.files.delete_expired(now)
            await erase_deleted(storage)
        await upkeep.forget_remains(ended_before)
        await answers.prune()
        before = await upkeep.sizes()
        if alone and not before.gives_back:
            await upkeep.rebuild()
            await answers.rebuild()
        else:
            await give_back(storage, 0)
        after = await upkeep.sizes()
    return before.bytes - after.bytes, 0 if after.gives_back else after.free
