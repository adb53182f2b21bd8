"""A client of any server that speaks the Batch API: behind the ``batches`` commands, and ``gristmill.Client``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from gristmill.batches.lifecycle import is_terminal
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch, CreateBatchRequest
from gristmill.wire.common import Page
from gristmill.wire.errors import ErrorResponse
from gristmill.wire.files import File
from gristmill.wire.models import ModelList

T = TypeVar("T")

#: Seconds; an upload's answer comes only when the last byte is stored.
_POLL_SECONDS = 1.0
_TIMEOUT = httpx.Timeout(600.0, connect=10.0)


class Client:
    """``server`` is a base URL with its ``/v1``. Every method raises UserError, in a sentence, when it fails."""

    def __init__(self, server: str = "http://127.0.0.1:4080/v1") -> None:
        self._server = server.rstrip("/")
        self._http = httpx.Client(timeout=_TIMEOUT)

    @property
    def server(self) -> str:
        return self._server

    def models(self) -> list[str]:
        return [each.id for each in self._ask("GET", "/models", ModelList).data]

    def can_score(self, model: str) -> bool:
        """Whether the server gives the probabilities of labels (``/v1/score``); it is asked for some."""
        body = {"model": model, "query": "?", "labels": ["0", "1"]}
        with self._clear_errors():
            return self._http.post(f"{self._server}/score", json=body).status_code == 200

    def upload(self, path: Path) -> File:
        with path.open("rb") as file:
            files = {"file": (path.name, file, "application/jsonl")}
            return self._ask("POST", "/files", File, data={"purpose": "batch"}, files=files)

    def create(self, request: CreateBatchRequest, metadata: dict[str, str] | None = None) -> Batch:
        # What says nothing is left out: other servers do not know our additions.
        given = {name: value for name, value in msgspec.to_builtins(request).items() if value}
        return self._ask("POST", "/batches", Batch, json=given | {"metadata": metadata or {}})

    def submit(
        self,
        path: str | Path,
        endpoint: str = "/v1/chat/completions",
        window: str = "30d",
        *,
        metadata: dict[str, str] | None = None,
        defaults: dict[str, Any] | None = None,
        reuse_answers: bool = False,
    ) -> Batch:
        """Upload a JSONL file and create a batch of it. ``window`` is how long it may take, such as 24h or 30d;
        ``defaults`` are body parameters for lines that do not set them."""
        file = self.upload(Path(path))
        request = CreateBatchRequest(file.id, endpoint, window, defaults=defaults, reuse_answers=reuse_answers)
        return self.create(request, metadata)

    def save(self, batch: Batch, output: str | Path) -> list[Path]:
        """Write the answers of an ended batch to ``output``, and failed rows, if any, to ``OUTPUT.errors`` beside it.
        Goes on where an earlier try stopped. The files that were written: none where no row ran."""
        target = Path(output)
        errors = target.with_name(f"{target.stem}.errors{target.suffix}")
        written = []
        for file_id, path in ((batch.output_file_id, target), (batch.error_file_id, errors)):
            if file_id is not None:
                for _ in self.download(file_id, path):
                    pass
                written.append(path)
        return written

    def get(self, batch_id: str) -> Batch:
        return self._ask("GET", f"/batches/{batch_id}", Batch)

    def wait(self, batch: Batch, look: Callable[[Batch], None] | None = None) -> Batch:
        """Until it has ended; ``look`` is called with it every second."""
        while not is_terminal(batch.status):
            if look is not None:
                look(batch)
            time.sleep(_POLL_SECONDS)
            batch = self.get(batch.id)
        return batch

    def page(self, limit: int, after: str | None = None) -> Page[Batch]:
        query = {"limit": limit} | ({"after": after} if after else {})
        return self._ask("GET", "/batches", Page[Batch], params=query)

    def cancel(self, batch_id: str) -> Batch:
        return self._ask("POST", f"/batches/{batch_id}/cancel", Batch)

    def file(self, file_id: str) -> File:
        return self._ask("GET", f"/files/{file_id}", File)

    def download(self, file_id: str, target: Path) -> Iterator[int]:
        """Write a file, going on where an earlier download stopped; yields the bytes received so far."""
        size = self.file(file_id).bytes
        # Named after the file, so that what is left of another download is not taken for its beginning.
        partial = target.with_name(f"{target.name}.{file_id}.part")
        have = partial.stat().st_size if partial.exists() else 0
        if have > size:
            partial.unlink()
            have = 0
        with partial.open("ab") as file:
            while have < size:
                for chunk in self._chunks(file_id, have):
                    file.write(chunk)
                    have += len(chunk)
                    yield have
        partial.replace(target)

    def _chunks(self, file_id: str, start: int) -> Iterator[bytes]:
        url, headers = f"{self._server}/files/{file_id}/content", {"range": f"bytes={start}-"}
        with self._clear_errors(), self._http.stream("GET", url, headers=headers) as answer:
            if answer.status_code != 206:
                answer.read()
                raise _refusal(answer)
            yield from answer.iter_bytes()

    def _ask(self, method: str, path: str, kind: type[T], **options: Any) -> T:
        with self._clear_errors():
            answer = self._http.request(method, self._server + path, **options)
        if answer.status_code != 200:
            raise _refusal(answer)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError:
            raise UserError(
                f"{self._server} answered, but not as a Batch API server: check the URL (it usually ends in /v1)."
            ) from None

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            raise UserError(
                f"'{self._server}' is not a server's URL: write it like http://127.0.0.1:4080/v1."
            ) from None
        except httpx.TimeoutException:
            raise UserError(f"The server at {self._server} did not answer in time: is it overloaded?") from None
        except httpx.TransportError as error:
            raise UserError(
                f"No server answers at {self._server} ({error}): start one with 'gristmill serve', "
                "or name another with --server."
            ) from None


def _refusal(answer: httpx.Response) -> UserError:
    with suppress(msgspec.DecodeError):
        error = msgspec.json.decode(answer.content, type=ErrorResponse).error
        if error.code != "unknown_url":
            return UserError(error.message)
    return UserError(
        f"{answer.url} answered {answer.status_code}, but not as a Batch API server: "
        "check the URL (it usually ends in /v1)."
    )
