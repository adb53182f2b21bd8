"""Running a pass on a server."""

from __future__ import annotations

import contextlib
import functools
import secrets
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from gristmill.batches.job_folder import write_whole
from gristmill.client import Client
from gristmill.http_values import shown
from gristmill.printable import printable
from gristmill.scoring.backend import MakeView, NoView, PassFiles
from gristmill.scoring.computation import computation_there, note_computation
from gristmill.scoring.prompt import LABELS, TOP_LOGPROBS, Method
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch, CreateBatchRequest

_NOTE = "batch.json"
_NAME = "gristmill_pass"
_WINDOW = "30d"


class _Note(msgspec.Struct):
    """Which batch the pass is, and what it was started with."""

    batch_id: str
    identity: dict[str, Any]


class RemoteBackend:
    """A server. A pass that was begun is not begun again: its batch is looked for."""

    def __init__(
        self, client: Client, model: str | None, reuse_answers: bool = False, make_view: MakeView = NoView
    ) -> None:
        """``model`` None: the server's only one."""
        self._client = client
        self._given_model = model
        self._reuse_answers = reuse_answers
        self._make_view = make_view

    @functools.cached_property
    def labels_method(self) -> Method:
        return LABELS if self._client.can_score(self.model) else TOP_LOGPROBS

    @functools.cached_property
    def model(self) -> str:
        if self._given_model is None:
            return self._client.only_model()
        names = self._client.models()
        if self._given_model not in names:
            raise UserError(
                f"The server has no model '{self._given_model}'. It has: {', '.join(map(printable, names)) or 'none'}."
            )
        return self._given_model

    @property
    def begins_answers(self) -> bool:
        # A server does not say, and one that cannot would refuse every row.
        return False

    @property
    def place(self) -> str:
        return f"on the server {shown(self._client.server)}"

    def session(self) -> AbstractContextManager[None]:
        # The server's engine is up anyway.
        return contextlib.nullcontext()

    def run(
        self, folder: Path, input_file: Path, endpoint: str, shared: dict[str, Any], identity: dict[str, Any]
    ) -> PassFiles:
        identity = identity | {"server": self._client.server}
        note = folder / _NOTE
        if note.exists():
            begun = msgspec.json.decode(note.read_bytes(), type=_Note)
            changed = [name for name, value in identity.items() if begun.identity.get(name) != value]
            if changed:
                raise UserError(
                    f"The {' and '.join(changed)} changed since this was started: undo that to go on, or delete "
                    f"{folder.parent} to start afresh."
                )
            batch = self._client.get(begun.batch_id)
        else:
            batch = self._find_or_create(folder, input_file, endpoint, shared)
            write_whole(note, msgspec.json.encode(_Note(batch.id, identity)))
        server = shown(self._client.server)
        note_computation(folder, computation_there(server, self.model, self.place, self._reuse_answers))
        with self._make_view() as view:
            batch = self._client.wait(batch, view.update, view.no_answer)
        view.ended(batch)
        if batch.status != "completed":
            errors = batch.errors.data if batch.errors else []
            said = "; ".join(each.message for each in errors[:3])
            raise UserError(f"The batch {batch.id} on the server is {batch.status}. {said}".strip())
        files = []
        for file_id, name in ((batch.output_file_id, "output.jsonl"), (batch.error_file_id, "errors.jsonl")):
            if file_id is not None:
                self._client.download(file_id, folder / name)
                files.append(folder / name)
        return PassFiles(batch, files)

    def _find_or_create(self, folder: Path, input_file: Path, endpoint: str, shared: dict[str, Any]) -> Batch:
        """A kill may have come between creating the batch and noting it: it carries a name of ours."""
        name = folder / _NAME
        if name.exists():
            known = name.read_text()
            for batch in self._client.page(100).data:
                if (batch.metadata or {}).get(_NAME) == known:
                    return batch
        else:
            write_whole(name, secrets.token_hex(16).encode())
        file = self._client.upload(input_file)
        request = CreateBatchRequest(file.id, endpoint, _WINDOW, defaults=shared, reuse_answers=self._reuse_answers)
        return self._client.create(request, {_NAME: name.read_text()})
