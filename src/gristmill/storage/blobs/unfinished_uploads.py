"""Uploads in parts that a kill has cut off. S3 keeps their parts, at a price, until somebody aborts them; obstore lists
none and aborts only its own."""

from __future__ import annotations

import os
from datetime import timedelta
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree

import httpx
import obstore
from obstore.store import S3Store

from gristmill.storage.blobs.diagnosis import error_code
from gristmill.storage.blobs.signature import Signer
from gristmill.storage.errors import StorageError, Unreachable

_SECONDS = 30.0


class UnfinishedUploads:
    """Of an S3 bucket, as long as the key is in the environment: where credentials come from elsewhere, a rule of the
    bucket has to abort them (docs/how-to/object-storage.md)."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    async def abort(self, path: str) -> int:
        """All of the blob ``path``; the bytes of their parts."""
        url = urlsplit(await obstore.sign_async(self._store, "GET", path, timedelta(minutes=5)))
        signer = _signer(parse_qs(url.query))
        if signer is None:
            return 0
        key = f"{self._store.prefix}/{path}" if self._store.prefix else path
        bucket = f"{url.scheme}://{url.netloc}{unquote(url.path).removesuffix(key)}"
        freed = 0
        async with httpx.AsyncClient(timeout=_SECONDS) as client:
            found = await _asked(client, signer, "GET", bucket, {"uploads": "", "prefix": key})
            for upload in found.iterfind("{*}Upload"):
                if upload.findtext("{*}Key") == key:
                    which = {"uploadId": upload.findtext("{*}UploadId") or ""}
                    parts = await _asked(client, signer, "GET", bucket + quote(key), which)
                    freed += sum(int(part.text or 0) for part in parts.iterfind("{*}Part/{*}Size"))
                    await _asked(client, signer, "DELETE", bucket + quote(key), which)
        return freed


def _signer(query: dict[str, list[str]]) -> Signer | None:
    """With the key that a URL was signed with; None where its secret is not in the environment."""
    key, _, region, *_ = query["X-Amz-Credential"][0].split("/")
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
    if secret is None or key != os.environ.get("AWS_ACCESS_KEY_ID"):
        return None
    return Signer(key, secret, os.environ.get("AWS_SESSION_TOKEN"), region)


async def _asked(
    client: httpx.AsyncClient, signer: Signer, method: str, url: str, query: dict[str, str]
) -> ElementTree.Element:
    """The answer; an empty one where there is no such upload any more. Raises StorageError."""
    try:
        answer = await client.request(method, signer.url(method, url, query))
    except httpx.TransportError as error:
        raise Unreachable(f"The object store cannot be reached ({error}).") from error
    code = "" if answer.is_success else error_code(answer)
    if code == "NoSuchUpload" or answer.status_code == 204:
        return ElementTree.Element("None")
    if not answer.is_success:
        raise StorageError(f"What a write that was cut off has left cannot be removed: {answer.status_code} {code}.")
    return ElementTree.fromstring(answer.content)
