from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Iterator

import pytest
import structlog

from gristmill.storage.errors import StorageError
from gristmill.telemetry import log


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)


class Unprintable:
    def __repr__(self) -> str:
        raise OSError(24, "Too many open files")

    __str__ = __repr__


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise OSError(24, "Too many open files")


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("value", [{"exc_info": UnprintableError()}, {"reason": Unprintable()}])
def test_an_event_that_cannot_be_rendered_is_logged_all_the_same_and_raises_nothing(
    capsys: pytest.CaptureFixture[str], as_json: bool, value: dict[str, object]
) -> None:
    log.configure(as_json=as_json)
    log.get_logger("gristmill.test").error("a batch failed", batch="batch_1", **value)
    log.drain()
    assert "a batch failed" in capsys.readouterr().err


@pytest.mark.parametrize("content", [False, True])
def test_what_clients_sent_and_engines_answered_is_logged_only_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], content: bool
) -> None:
    log.configure(content=content)
    try:
        try:
            int("a prompt")
        except ValueError:
            raise KeyError("an answer") from None
    except KeyError as error:
        log.get_logger("gristmill.test").error("it failed", content="more of it", exc_info=error)
    log.drain()
    line = capsys.readouterr().err
    assert "error=KeyError" in line.replace("'", "").replace('"', "") and "test_log:" in line
    assert ("an answer" in line) == ("more of it" in line) == content and "a prompt" not in line


class OddError(OSError):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("as_json", [False, True])
def test_an_event_that_cannot_be_rendered_is_logged_without_content_either(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    log.configure(as_json=as_json)
    log.get_logger("gristmill.test").error("it failed", batch="b", content="a prompt", exc_info=OddError("an answer"))
    log.drain()
    line = capsys.readouterr().err
    assert "it failed" in line and "OddError" in line and "a prompt" not in line and "an answer" not in line


def test_errors_of_files_and_storage_are_told_with_their_reason(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(as_json=True)
    report = log.get_logger("gristmill.test").error
    report("one", exc_info=OSError(28, "No space left on device"))
    report("two", exc_info=ExceptionGroup("several", [StorageError("The database is locked."), ValueError("secret")]))
    log.drain()
    one, two = (json.loads(line)["error"] for line in capsys.readouterr().err.splitlines())
    assert "No space left on device" in one
    assert two == "ExceptionGroup <- ValueError <- StorageError: The database is locked."


def test_what_cannot_be_encoded_is_written_in_another_way(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for as_json in (False, True):
        stream = io.TextIOWrapper(open(os.dup(2), "wb", buffering=0), encoding="ascii")  # noqa: PTH123, SIM115
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stderr", stream)
            log.configure(as_json=as_json)
            log.get_logger("gristmill.test").error("caf\u00e9 \ud800 \U0001f600", batch="\udcff")
            log.drain()
        stream.detach()
    console, as_object = capfdbinary.readouterr().err.splitlines()
    assert b"caf\\xe9" in console and b"\\U0001f600" in console
    assert json.loads(as_object)["event"] == "caf\u00e9 \ud800 \U0001f600"


def test_warnings_of_python_become_lines_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old age", UserWarning, stacklevel=1)
    log.drain()
    assert "old age" in capsys.readouterr().err
