"""What all pages of a server share: the event streams, the disk, names of files, and counts of results."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property

from gristmill.batches.host import BatchHost
from gristmill.batches.results.tally import ResultTallies
from gristmill.storage.open import places
from gristmill.web.disk import Disk
from gristmill.web.failure_counts import FailureCounts
from gristmill.web.stream import Streams

_KEPT_NAMES = 2_000


class Dashboard:
    """One for each application."""

    def __init__(self, host: BatchHost) -> None:
        self.tallies = ResultTallies()
        self.failure_counts = FailureCounts()
        self.streams = Streams()
        self._host = host
        self._names: OrderedDict[tuple[str, str | None], str] = OrderedDict()

    @cached_property
    def disk(self) -> Disk:
        return Disk(self._host.storage, places(self._host.settings.storage))

    async def file_name(self, file_id: str, reader: str | None) -> str:
        """What a file was called that a batch of the access key ``reader`` may read; empty where there is no such file.
        A file's name never changes."""
        asked = (file_id, reader)
        if asked not in self._names:
            file = await self._host.storage.metadata.files.get_kept(*asked)
            if len(self._names) >= _KEPT_NAMES:
                self._names.popitem(last=False)
            self._names[asked] = file.filename if file is not None else ""
        return self._names[asked]
