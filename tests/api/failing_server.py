"""The server with a defect: looking a file up fails with secrets all around it, downloads fail in the middle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from gristmill.cli.main import main
from gristmill.storage.blobs.local import LocalBlobStore
from gristmill.storage.sql.files import SqlFiles

_get = SqlFiles.get


async def get(self: Any, file_id: str) -> Any:
    secret = "sk-SECRET in a variable"
    if file_id == "file-broken":
        raise RuntimeError(f"broken on purpose\nwith a second line \x1b[31m and {len(secret)}")
    return await _get(self, file_id)


async def stream(
    self: Any, path: str, start: int = 0, end: int | None = None, chunk_bytes: int | None = None
) -> AsyncIterator[bytes]:
    yield b"the beginning"
    secret = "sk-SECRET in a variable"
    raise RuntimeError(f"broken in the middle {len(secret)}")


SqlFiles.get = get  # type: ignore[method-assign]
LocalBlobStore.stream = stream  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
