"""The vectors of a table's rows by a model that embeds: ordinary batches in a folder, a line a row."""

from __future__ import annotations

import base64
import hashlib
import itertools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gristmill.extras import require
from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.wire.batch import Batch
from gristmill.wire.paths import EMBEDDINGS

#: A vector of 768 numbers is 4 KB in base64 and 9 KB in decimals. Servers that do not know it send decimals, as they do
#: to OpenAI's own client, which asks for it unless it is told otherwise.
_SHARED = {"encoding_format": "base64"}
#: Most models that embed read 512 tokens at most, and engines refuse what is longer. A guess may go by the beginning of
#: a row: it is cut to half its length so often.
_HALVINGS = 5
#: Characters. What is refused at that length is not too long.
_SHORT = 100


class RowVector(NamedTuple):
    """``vector``: its numbers, float32; None where there are none, and ``error`` says why."""

    row: int
    vector: Any
    error: str | None = None


class RowVectors:
    """Asks for them, in parts of the table, and reads them from the batches' files, which may be larger than memory."""

    def __init__(self, folder: Path, backend: ScoreBackend, questionnaire: Questionnaire) -> None:
        self._folder = folder
        self._backend = backend
        self._questionnaire = questionnaire
        self._files: dict[str, list[Path]] = {}
        self.batches: list[Batch] = []
        #: How many rows got none, and why the last of them.
        self.failed = 0
        self.error: str | None = None

    def ask(self, part: str, rows: Iterable[int]) -> None:
        """Of the ``rows`` that have a text, in their order. A part that was asked before is only looked up. Raises
        UserError, and Interrupted where a signal ended it before."""
        asked = [row for row in rows if self._questionnaire.why_not(row) is None]
        kept = self._files[part] = []
        for halvings in range(_HALVINGS + 1):
            if not asked:
                break
            files = self._pass(f"{part}-{halvings}", asked, halvings)
            kept += files
            without = sorted(self._without(files))
            asked = [row for row in without if len(self._text(row, halvings)) > _SHORT]
            self.failed += len(without) - len(asked)
        self.failed += len(asked)

    def read(self, *parts: str) -> Iterator[RowVector]:
        """Of each of their rows that has one."""
        files = itertools.chain.from_iterable(self._files.get(part, ()) for part in parts)
        return (each for each in _read(files) if each.vector is not None)

    def forget(self) -> None:
        """All is asked again next time."""
        shutil.rmtree(self._folder)

    def _without(self, files: Sequence[Path]) -> Iterator[int]:
        for row, vector, error in _read(files):
            if vector is None:
                self.error = error
                yield row

    def _pass(self, name: str, rows: Sequence[int], halvings: int) -> Sequence[Path]:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        input_file = folder / "texts.jsonl"
        texts = ((row, self._text(row, halvings)) for row in rows)
        digest = _write(input_file, texts, self._backend.model)
        done = self._backend.run(folder, input_file, EMBEDDINGS, _SHARED, {"table or row template": digest})
        self.batches.append(done.batch)
        return done.files

    def _text(self, row: int, halvings: int) -> str:
        text = self._questionnaire.text_of(row)
        return text[: len(text) >> halvings]


class _Body(msgspec.Struct):
    model: str
    input: str


class _Line(msgspec.Struct):
    custom_id: str
    body: _Body
    method: str = "POST"
    url: str = EMBEDDINGS


class _Embedding(msgspec.Struct):
    embedding: list[float] | str


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]


class _Refusal(msgspec.Struct):
    error: Any = None


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw


class _Answer(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: Any = None


_encoder = msgspec.json.Encoder()
_answer_decoder = msgspec.json.Decoder(_Answer)
_vector_decoder = msgspec.json.Decoder(_Embeddings)
_refusal_decoder = msgspec.json.Decoder(_Refusal)


def _write(path: Path, texts: Iterable[tuple[int, str]], model: str) -> str:
    """A batch's input; the digest of what was written."""
    digest = hashlib.sha256()
    partial = path.with_suffix(".part")
    with partial.open("wb", 1024 * 1024) as file:
        for row, text in texts:
            line = _encoder.encode(_Line(str(row), _Body(model, text))) + b"\n"
            digest.update(line)
            file.write(line)
    partial.replace(path)
    return digest.hexdigest()


def _read(files: Iterable[Path]) -> Iterator[RowVector]:
    """Line by line: what the output and error files of batches say."""
    for path in files:
        with path.open("rb") as file:
            for line in file:
                yield _row_vector(_answer_decoder.decode(line))


def _row_vector(answer: _Answer) -> RowVector:
    row, response = int(answer.custom_id), answer.response
    try:
        if response is None or response.status_code != 200:
            error = answer.error if response is None else _refusal_decoder.decode(response.body).error
            message = error.get("message") if isinstance(error, dict) else None
            return RowVector(row, None, str(message or error or "there is no answer"))
        (found,) = _vector_decoder.decode(response.body).data
        return RowVector(row, _numbers(found.embedding))
    except ValueError as what:
        return RowVector(row, None, f"its answer has no vector: {what}")


def _numbers(embedding: list[float] | str) -> Any:
    """Raises ValueError."""
    numpy = require("numpy", "score")
    if isinstance(embedding, str):
        vector = numpy.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    else:
        vector = numpy.array(embedding, numpy.float32)
    if not vector.size or not numpy.isfinite(vector).all():
        raise ValueError("it has no numbers, or some that are not finite")
    return vector
