"""The methods of a client: one for each thing a batch's user does."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from gristmill.batches.lifecycle import is_terminal
from gristmill.batches.output_lines import errors_beside
from gristmill.client.chat import stream_chat
from gristmill.client.connection import Backoff, NoAnswer, NotBatchApi, Refusal, ServerConnection, Silence
from gristmill.client.download import OnBytes, download_whole, stream_whole
from gristmill.client.result_stream import ResultKind, ResultStream, save_lines
from gristmill.http_values import object_path
from gristmill.printable import printable
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch, CreateBatchRequest
from gristmill.wire.common import ListPage
from gristmill.wire.files import File, FileDeleted
from gristmill.wire.models import ModelList
from gristmill.wire.score import ScoreResponse
from gristmill.wire.webhooks import WebhookDelivery, WebhookRequest

_POLL_SECONDS = 1.0
#: After a creation that was not confirmed; a server may take a moment to store the batch.
_LOOK_AFTER_SECONDS = (0.0, 1.0, 2.0)
#: What servers that have no label scores answer; 400 and 422: they have something else at that address.
_NO_SCORES = (400, 404, 405, 422, 501)


class Client:
    """``server`` is its address, with or without ``/v1``. Every method raises UserError, in a sentence, when it fails.

    A request that meets a server that is restarting or overloaded is tried again for ``patience`` seconds. ``api_key``
    is sent as a bearer token; by default it is the one in the environment variable GRISTMILL_API_KEY, if any.
    """

    def __init__(
        self, server: str = "http://127.0.0.1:4080/v1", api_key: str | None = None, *, patience: float = 30.0
    ) -> None:
        self._connection = ServerConnection(server, api_key, patience)

    @property
    def server(self) -> str:
        return self._connection.server

    def models(self) -> list[str]:
        return [each.id for each in self._connection.ask("GET", "/models", ModelList).data]

    def only_model(self) -> str:
        """Raises UserError where the server has several, or none."""
        models = self._connection.ask("GET", "/models", ModelList).data
        names = [each.id for each in models if each.root in (None, each.id) or len(models) == 1]
        if len(names) != 1:
            raise UserError(
                f"Say which model, with --model. The server has: {', '.join(map(printable, names)) or 'none'}."
            )
        return names[0]

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """The chat completion of a request, as the server gives it."""
        return self._connection.ask("POST", "/chat/completions", dict[str, Any], json=body, slow=True)

    def stream_chat(self, body: dict[str, Any], on_text: Callable[[str], None]) -> str | None:
        """Call ``on_text`` with each piece of the answer; why it ended ("stop", "length"), where the server says so."""
        return stream_chat(self._connection, body, on_text)

    def can_score(self, model: str) -> bool:
        """Whether the server gives the probabilities of labels (``/v1/score``); it is asked for some."""
        body = {"model": model, "query": "?", "labels": ["0", "1"]}
        try:
            self._connection.ask("POST", "/score", ScoreResponse, json=body, slow=True)
        except (Refusal, NotBatchApi) as error:
            if error.status not in (200, *_NO_SCORES) or getattr(error, "code", None) == "model_not_found":
                raise
            return False
        return True

    def upload(self, path: Path) -> File:
        # Servers that know it, as this one does, make one file of all attempts.
        headers = {"Idempotency-Key": secrets.token_hex(16)}

        def attempt() -> File:
            with path.open("rb") as file:
                form = {"data": {"purpose": "batch"}, "files": {"file": (path.name, file, "application/jsonl")}}
                return self._connection.ask_once("POST", "/files", File, slow=True, headers=headers, **form)

        try:
            return self._connection.patiently(attempt)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None

    def create(self, request: CreateBatchRequest, metadata: dict[str, str] | None = None) -> Batch:
        """Exactly one batch, or UserError: where the answer is lost, the batch is looked for, not created again."""
        newest = self.page(1).data
        # What says nothing is left out: other servers do not know our additions.
        given = {name: value for name, value in msgspec.to_builtins(request).items() if value}
        body = given | {"metadata": metadata or {}}
        try:
            return self._connection.ask("POST", "/batches", Batch, repeatable=False, json=body)
        except NoAnswer as error:
            if not error.acted_upon:
                raise
            for seconds in _LOOK_AFTER_SECONDS:
                time.sleep(seconds)
                found = self._created(request, metadata or {}, newest[0].id if newest else None)
                if found is not None:
                    return found
            raise UserError(
                f"The server did not confirm that it created the batch ({error.reason}), and no such batch is on the "
                "server now. Look again with 'gristmill batches list' before you submit it a second time."
            ) from None

    def submit(
        self,
        path: str | Path,
        endpoint: str = "/v1/chat/completions",
        window: str = "30d",
        *,
        metadata: dict[str, str] | None = None,
        defaults: dict[str, Any] | None = None,
        reuse_answers: bool = False,
        webhook: WebhookRequest | None = None,
        priority: int = 0,
    ) -> Batch:
        """Upload a JSONL file and create a batch of it. ``window`` is how long it may take, such as 24h or 30d;
        ``defaults`` are body parameters for lines that do not set them; ``priority``, from -5 to 5, is its share of the
        engine among other batches, each step twice as much; ``webhook`` is told of the end, and should have a secret:
        the one that the server makes is lost where its answer is."""
        file = self.upload(Path(path))
        request = CreateBatchRequest(
            file.id,
            endpoint,
            window,
            defaults=defaults,
            reuse_answers=reuse_answers,
            webhook=webhook,
            priority=priority,
        )
        return self.create(request, metadata)

    def save(self, batch: Batch, output: str | Path, on_bytes: OnBytes | None = None) -> list[Path]:
        """Write a batch's answers to ``output``, and failed rows, if any, to ``OUTPUT.errors`` beside it: of one that
        has not ended, as far as there are any, and with those of its retries. Of one that has ended and was not
        retried, goes on where an earlier try stopped. The files that were written: none where no row ran."""
        target = Path(output)
        if not self.is_whole(batch):
            return save_lines(target, lambda kind, write: self.stream_results(batch, kind, write))
        written = []
        for file_id, path in ((batch.output_file_id, target), (batch.error_file_id, errors_beside(target))):
            if file_id is not None:
                self.download(file_id, path, on_bytes)
                written.append(path)
        return written

    def get(self, batch_id: str) -> Batch:
        return self._connection.ask("GET", object_path("batches", batch_id), Batch)

    def wait(
        self,
        batch: Batch,
        look: Callable[[Batch], None] | None = None,
        no_answer: Callable[[Silence], None] | None = None,
    ) -> Batch:
        """Until it has ended; ``look`` is called with it every second. A server that does not answer is waited for,
        however long it is away; ``no_answer`` is called after each try."""
        while not is_terminal(batch.status):
            if look is not None:
                look(batch)
            time.sleep(_POLL_SECONDS)
            batch = self._get_at_last(batch.id, no_answer)
        return batch

    def page(self, limit: int, after: str | None = None) -> ListPage[Batch]:
        return self._connection.ask("GET", "/batches", ListPage[Batch], params=_given(limit=limit, after=after))

    def cancel(self, batch_id: str) -> Batch:
        return self._order(batch_id, "cancel")

    def pause(self, batch_id: str) -> Batch:
        """Its status stays, and its window goes on."""
        return self._order(batch_id, "pause")

    def resume(self, batch_id: str) -> Batch:
        return self._order(batch_id, "resume")

    def set_priority(self, batch_id: str, priority: int) -> Batch:
        """From -5 to 5, of a batch that has rows to run; at once."""
        return self._connection.ask("POST", object_path("batches", batch_id), Batch, json={"priority": priority})

    def retry(self, batch_id: str) -> Batch:
        """A new batch of the rows that an ended one has not answered; where one of its retries has not ended, that."""
        return self._order(batch_id, "retry", slow=True, headers={"Idempotency-Key": secrets.token_hex(16)})

    def chain(self, batch: Batch) -> list[Batch]:
        """The batch and its retries, one after another."""
        chain = [batch]
        while chain[-1].gristmill is not None and (later := chain[-1].gristmill.retried_by) is not None:
            try:
                chain.append(self.get(later))
            except Refusal as error:
                # It was deleted, or forgotten after its time.
                if error.status != 404:
                    raise
                break
        return chain

    def is_whole(self, batch: Batch) -> bool:
        """Whether its two files hold all that is known: it has ended, and was not retried."""
        return is_terminal(batch.status) and (batch.gristmill is None or batch.gristmill.retried_by is None)

    def stream_results(self, batch: Batch, kind: ResultKind, write: Callable[[bytes], object]) -> int:
        """Hand the lines that a batch and its retries have so far to ``write``, whole lines at a time; how many."""
        if batch.gristmill is None:
            raise UserError(
                f"The batch is {printable(batch.status)}, and this server gives its results when it has ended."
            )
        return ResultStream(self._connection, batch.id, kind, write).complete()

    def _order(self, batch_id: str, what: str, **of: Any) -> Batch:
        return self._connection.ask("POST", object_path("batches", batch_id, what), Batch, **of)

    def files(self, limit: int, after: str | None = None, purpose: str | None = None) -> ListPage[File]:
        """Newest first."""
        query = _given(limit=limit, after=after, purpose=purpose)
        return self._connection.ask("GET", "/files", ListPage[File], params=query)

    def delete_file(self, file_id: str) -> None:
        tries = 0

        def attempt() -> FileDeleted:
            nonlocal tries
            tries += 1
            try:
                return self._connection.ask_once("DELETE", object_path("files", file_id), FileDeleted)
            except Refusal as error:
                # An earlier try, whose answer was lost, has deleted it.
                if error.status == 404 and tries > 1:
                    return FileDeleted(file_id)
                raise

        self._connection.patiently(attempt)

    def file(self, file_id: str) -> File:
        return self._connection.ask("GET", object_path("files", file_id), File)

    def download(self, file_id: str, target: Path, on_bytes: OnBytes | None = None) -> None:
        """Write a file, going on where an earlier download stopped; ``target`` is whole or not there."""
        download_whole(self._connection, file_id, self.file(file_id).bytes, target, on_bytes)

    def stream(self, file_id: str, write: Callable[[bytes], object]) -> None:
        """Hand a file's bytes to ``write`` as they come: what it was given cannot be taken back."""
        stream_whole(self._connection, file_id, self.file(file_id).bytes, write)

    def webhook_deliveries(
        self, limit: int, after: str | None = None, status: str | None = None, batch_id: str | None = None
    ) -> ListPage[WebhookDelivery]:
        """Newest first."""
        query = _given(limit=limit, after=after, status=status, batch_id=batch_id)
        return self._connection.ask("GET", "/webhook_deliveries", ListPage[WebhookDelivery], params=query)

    def resend_webhook(self, delivery_id: str) -> WebhookDelivery:
        return self._connection.ask("POST", object_path("webhook_deliveries", delivery_id, "resend"), WebhookDelivery)

    def _get_at_last(self, batch_id: str, no_answer: Callable[[Silence], None] | None) -> Batch:
        backoff, since = Backoff(), time.time()
        while True:
            try:
                return self._connection.ask_once("GET", object_path("batches", batch_id), Batch)
            except (NoAnswer, NotBatchApi) as error:
                if no_answer is not None:
                    no_answer(Silence(since, error.reason))
                time.sleep(backoff.pause(error.retry_after))

    def _created(self, request: CreateBatchRequest, metadata: dict[str, str], newest: str | None) -> Batch | None:
        """The batch of ``request``, among those that are newer than ``newest``."""
        after = None
        while True:
            page = self.page(100, after)
            for batch in page.data:
                if batch.id == newest:
                    return None
                asked = (request.input_file_id, request.endpoint, metadata)
                if (batch.input_file_id, batch.endpoint, batch.metadata or {}) == asked:
                    return batch
            if not page.has_more or not page.data:
                return None
            after = page.data[-1].id


def _given(**query: Any) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}
