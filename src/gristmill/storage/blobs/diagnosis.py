"""What an error of an object store means. obstore tells three kinds apart by class and all others by text only: so the
store is asked once more, by a request whose answer can be read."""

from __future__ import annotations

import os
import ssl
import time
from datetime import timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from xml.etree import ElementTree

import httpx
import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from gristmill.storage.blobs.store_trouble import StoreAnswer, Trouble, trouble
from gristmill.storage.errors import BlobLost, NoCredentials, StorageError, Unreachable

_VALID = timedelta(minutes=5)
_SECONDS = 10.0
#: Where obstore looks for credentials and region first.
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


class Unexplained(Unreachable):
    """A request failed, and the next was answered as it should be."""


class Diagnosis:
    """``store`` is at ``location``."""

    def __init__(self, store: ObjectStore, location: str) -> None:
        self._store = store
        self._location = location
        self._scheme = urlsplit(location).scheme
        self._bucket = urlsplit(location).netloc

    async def of(self, path: str, error: Exception) -> Exception:
        """What to raise in place of obstore's ``error`` about a blob."""
        if not isinstance(error, (BaseError, FileNotFoundError)):
            return error
        try:
            answer = await self._ask(path)
        except httpx.TransportError as unreachable:
            return self._unreachable(unreachable)
        except BaseError:
            # There are no credentials, or they are a token of Google's, with which not everybody may sign.
            answer = None
        found = trouble(answer) if answer is not None else None
        if found is None and isinstance(error, FileNotFoundError) and (answer is None or answer.status == 404):
            return BlobLost(f"The bytes of {path} are no longer in the blob store.")
        if found is None and isinstance(error, UnauthenticatedError):
            found = Trouble.CREDENTIALS
        if found is None and isinstance(error, PermissionDeniedError):
            # Reading is allowed, and this was something else.
            found = Trouble.PERMISSION
        if found is None and answer is None:
            names = CREDENTIALS[self._scheme]
            return NoCredentials(f"No credentials for the object store can be had: set {names}.")
        if found is None:
            return Unexplained(f"The object store did not do what it was asked: {first_line(error)}")
        return self._told(found, answer)

    async def _ask(self, path: str) -> StoreAnswer | None:
        store = self._store
        if not isinstance(store, (S3Store, GCSStore, AzureStore)):
            return None
        url = await obstore.sign_async(store, "GET", path, _VALID)
        async with httpx.AsyncClient(timeout=_SECONDS) as client:
            answer = await client.get(url, headers={"range": "bytes=0-0"})
        said = parsedate_to_datetime(answer.headers["date"]).timestamp() if "date" in answer.headers else time.time()
        code = "" if answer.is_success else error_code(answer)
        return StoreAnswer(answer.status_code, code, time.time() - said, answer.headers.get("x-amz-bucket-region"))

    def _told(self, found: Trouble, answer: StoreAnswer | None) -> StorageError:
        # What was answered now need not be about what was refused before.
        code = f" ({answer.code})" if answer is not None and trouble(answer) is found and answer.code else ""
        match found:
            case Trouble.BUCKET:
                return StorageError(f"There is no bucket '{self._bucket}': make it, or name another one with --blobs.")
            case Trouble.CREDENTIALS:
                return StorageError(
                    f"The object store does not know the credentials{code}: check {CREDENTIALS[self._scheme]}."
                )
            case Trouble.PERMISSION:
                return StorageError(
                    f"The credentials do not allow what was to be done in {self._location}{code}: they need the rights "
                    "to read, write, delete and list there."
                )
            case Trouble.REGION:
                region = answer.region if answer is not None else None
                where = f"is in the region {region}" if region else "is in another region"
                return StorageError(f"The bucket '{self._bucket}' {where}{code}: set AWS_REGION to the bucket's own.")
            case Trouble.CLOCK:
                off = f" by {abs(answer.skew):,.0f} seconds" if answer is not None else ""
                return StorageError(f"This machine's clock and the object store's differ{off}: set the clock.")
            case Trouble.THROTTLED:
                return Unreachable(f"The object store takes no more requests at the moment{code}.")
            case Trouble.FAILING:
                status = answer.status if answer is not None else 500
                return Unreachable(f"The object store fails with status {status}{code}.")

    def _unreachable(self, error: httpx.TransportError) -> StorageError:
        endpoint = os.environ.get("AWS_ENDPOINT_URL") if self._scheme == "s3" else None
        hint = f" at {urlsplit(endpoint).netloc.rpartition('@')[2]}" if endpoint else ""
        reason = str(error) or type(error).__name__
        if _is_of_tls(error):
            return StorageError(
                f"The object store{hint} does not speak TLS, or shows a certificate that is not trusted ({reason}): "
                "check whether its address begins with http:// or https://, and SSL_CERT_FILE."
            )
        return Unreachable(f"The object store{hint} cannot be reached ({reason}).")


def _is_of_tls(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


def error_code(answer: httpx.Response) -> str:
    """As all three write it: XML with a Code in it, and Azure as a header, too."""
    if (code := answer.headers.get("x-ms-error-code")) is not None:
        return str(code)
    try:
        return (ElementTree.fromstring(answer.content).findtext("{*}Code") or "").strip()
    except ElementTree.ParseError:
        return ""


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
