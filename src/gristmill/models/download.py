"""One file over HTTP into a partial file that a later attempt, of this process or another, continues.

The hub's own client keeps no partial file between runs (since huggingface_hub 1.x), and so starts a
download of many gigabytes again; it still provides the address and the headers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from gristmill.models.progress import human_size
from gristmill.user_error import UserError

#: Attempts in a row that bring no new byte before giving up, and the pause before the n-th, in seconds.
ATTEMPTS = 4
_PAUSES = (0.5, 1.0, 2.0)
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_RETRIED_STATUS = (408, 429, 500, 502, 503, 504)


class _Again(Exception):
    """What went wrong, worth another attempt."""


def download(url: str, partial: Path, size: int, headers: Mapping[str, str], advance: Callable[[int], None]) -> None:
    """Bring ``partial`` to ``size`` bytes. ``advance`` is told the bytes there so far.

    The content behind ``url`` must never change (an address with a commit in it), or the halves would not
    fit. Raises UserError when the server refuses or the connection keeps failing; ``partial`` is kept then.
    """
    failed = 0
    # The hub's authorization is not sent on to another host it redirects to: httpx drops it.
    with httpx.Client(follow_redirects=True, timeout=_TIMEOUT) as client:
        while (done := _length(partial)) != size:
            if done > size:
                partial.unlink()
                done = 0
            try:
                _attempt(client, url, partial, done, headers, advance)
                reason = "the server sent too little"
            except (httpx.TransportError, _Again) as error:
                reason = str(error) or type(error).__name__
            failed = 0 if _length(partial) > done else failed + 1
            if failed == ATTEMPTS:
                raise UserError(
                    f"The download of '{_name(url)}' stopped at {human_size(_length(partial))} of "
                    f"{human_size(size)} ({reason}): run the same command again, it continues from there."
                )
            if failed:
                time.sleep(_PAUSES[failed - 1])


def _attempt(
    client: httpx.Client,
    url: str,
    partial: Path,
    done: int,
    headers: Mapping[str, str],
    advance: Callable[[int], None],
) -> None:
    # Identity: a range is counted in bytes of the file, not of its compressed form.
    asked = {**headers, "accept-encoding": "identity"}
    if done:
        asked["range"] = f"bytes={done}-"
    with client.stream("GET", url, headers=asked) as response:
        if response.status_code in _RETRIED_STATUS:
            raise _Again(f"the server answered {response.status_code}")
        if response.status_code not in (200, 206):
            raise UserError(
                f"The server refused the download of '{_name(url)}' with status {response.status_code}: "
                "check that the repository is public or that HF_TOKEN holds a token that may read it."
            )
        continues = response.headers.get("content-range", "").startswith(f"bytes {done}-")
        if not (response.status_code == 206 and continues):
            done = 0
        with partial.open("ab" if done else "wb") as file:
            for chunk in response.iter_bytes():  # as received: a larger chunk is lost when cut
                file.write(chunk)
                done += len(chunk)
                advance(done)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _name(url: str) -> str:
    return httpx.URL(url).path.rsplit("/", 1)[-1]
