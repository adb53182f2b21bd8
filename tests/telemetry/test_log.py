from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from gristmill.telemetry import log


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


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
    log.get_logger("gristmill.test").error("the batch paused", batch="batch_1", **value)
    assert "the batch paused" in capsys.readouterr().err
