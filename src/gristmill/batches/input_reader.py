"""The one reader of an input: it meets each line once, cut, decoded and checked, for all who want to know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gristmill.batches import line_check
from gristmill.batches.line_check import LineCheck, LineChecker
from gristmill.batches.lines import Line, LineSplitter
from gristmill.wire.batch import BatchError


class Limits(NamedTuple):
    """What an input file may hold. Ours to set: the contract's clients enforce nothing."""

    max_rows: int = 10_000_000
    max_line_bytes: int = 32 * 1024 * 1024
    max_listed_errors: int = 10_000


class CheckedLine(NamedTuple):
    """A line that could be read; it is good if the check has no errors."""

    line: Line
    data: bytes
    check: LineCheck


class InputReader:
    """Feed it chunks, get lines; what is wrong with them, one by one or together, is collected.

    ``models`` are the names that lines may ask for, each with the model's own; None where any will do.
    """

    def __init__(
        self, endpoint: str, defaults: dict[str, Any] | None, models: Mapping[str, str] | None, limits: Limits
    ) -> None:
        self._checker = LineChecker(endpoint, defaults)
        self._models = models
        self._limits = limits
        self._splitter = LineSplitter(limits.max_line_bytes)
        #: Lines so far, and the first model that one of them names.
        self.total = 0
        self.model: str | None = None
        #: Errors of lines, in their order, and how many more there are than are listed.
        self.errors: list[BatchError] = []
        self.unlisted = 0

    @property
    def too_many(self) -> bool:
        """Whether there are more lines than allowed: reading on is no use."""
        return self.total > self._limits.max_rows

    def feed(self, chunk: bytes) -> Iterator[CheckedLine]:
        return self._check(self._splitter.feed(chunk))

    def finish(self) -> Iterator[CheckedLine]:
        """The last line, if it has no line end."""
        return self._check(self._splitter.finish())

    def found(self) -> list[BatchError]:
        """What is wrong, once the whole file has been read."""
        if self.total == 0:
            message = "The input file is empty. Please ensure that the batch contains at least one request."
            return [BatchError("empty_file", message)]
        if self.too_many:
            message = f"The batch input file has more than {self._limits.max_rows:,} requests, the maximum here."
            return [BatchError("maximum_requests_exceeded", message)]
        return self.errors

    def _check(self, lines: list[Line]) -> Iterator[CheckedLine]:
        for line in lines:
            self.total += 1
            if line.data is None:
                self._report(line_check.too_long(line.number, line.length, self._limits.max_line_bytes))
                continue
            check = self._checker.check(line.data, line.number)
            if check.model is not None and (error := self._model_error(line.number, check.model)) is not None:
                check.errors.append(error)
            for each in check.errors:
                self._report(each)
            yield CheckedLine(line, line.data, check)

    def _model_error(self, number: int, model: str) -> BatchError | None:
        own = model if self._models is None else self._models.get(model)
        self.model = self.model or own or model
        if (own or model) != self.model:
            return line_check.mismatched_model(number, model)
        if self._models is not None and own is None:
            return line_check.unsupported_model(number, model, self._models)
        return None

    def _report(self, error: BatchError) -> None:
        if len(self.errors) < self._limits.max_listed_errors:
            self.errors.append(error)
        else:
            self.unlisted += 1
