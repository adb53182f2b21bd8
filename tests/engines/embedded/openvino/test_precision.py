"""Linear layers in bf16 on AMX: that they are as accurate as in float32, and when they are chosen."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.engines.embedded.model_runner import Span
from gristmill.engines.embedded.openvino import loading, precision, split_linear
from gristmill.engines.embedded.openvino.attention_kernel import KernelMissingError, load_kernel
from gristmill.engines.embedded.openvino.engine import OpenVinoEngine, OpenVinoOptions
from gristmill.engines.embedded.openvino.paged_model import PagedModel
from gristmill.engines.embedded.openvino.precision import (
    Chosen,
    Measured,
    Setting,
    choose_precision,
    decide,
    largest_difference,
)
from gristmill.engines.embedded.openvino.prepare import prepare
from gristmill.engines.embedded.openvino.split_linear import LINEAR, SplitLinears, amx_is_here
from gristmill.engines.embedded.openvino.vocabulary import ModelVocabulary
from gristmill.engines.embedded.scheduling.step_abort import StepAbort, StepAborted
from gristmill.engines.embedded.worker.frames import Ready
from gristmill.engines.protocol import Computing
from gristmill.models.locate import locate
from gristmill.user_error import UserError


@pytest.fixture(scope="module")
def linears() -> SplitLinears:
    if not amx_is_here():
        pytest.skip("this processor has no AMX")
    try:
        kernel = load_kernel(LINEAR)
    except KernelMissingError as error:
        pytest.skip(str(error))
    if not kernel.library.allowed():
        pytest.skip("this system, or its C compiler, does not let AMX be used")
    return SplitLinears(kernel, threads=2)


@pytest.fixture(scope="module")
def split_model(linears: SplitLinears, pulled_model: str) -> PagedModel:
    return PagedModel(prepare(locate(pulled_model), "f16").folder, 2**28, precision="bf16x3")


def layer(weights: np.ndarray) -> Any:
    constant = SimpleNamespace(data=weights, get_output_shape=lambda _: list(weights.shape))
    return SimpleNamespace(node=None, weights=constant)


def multiplied(linears: SplitLinears, rows: np.ndarray, *weights: np.ndarray) -> list[np.ndarray]:
    out = [np.full((len(rows), len(each)), np.nan, np.float32) for each in weights]
    linears.runner([layer(each) for each in weights])(rows, out)
    return out


@given(
    rows=st.integers(1, 300),
    inputs=st.integers(1, 9),
    outputs=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    kind=st.sampled_from([np.float16, np.float32]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_products_are_those_of_float32_to_16_bits(linears, rows, inputs, outputs, kind, seed):
    random = np.random.default_rng(seed)
    given_rows = (random.standard_normal((rows, 32 * inputs)) * 10 ** random.uniform(-3, 3)).astype(np.float32)
    weights = [(random.standard_normal((32 * each, 32 * inputs)) * 0.05).astype(kind) for each in outputs]
    for found, each in zip(multiplied(linears, given_rows, *weights), weights, strict=True):
        exact = given_rows.astype(np.float64) @ each.T.astype(np.float64)
        scale = np.abs(given_rows).astype(np.float64) @ np.abs(each.T).astype(np.float64)
        assert (np.abs(found - exact) <= scale * 2**-15).all()


def test_a_row_is_computed_to_the_bit_whatever_its_neighbours(linears):
    random = np.random.default_rng(1)
    rows = random.standard_normal((150, 576), dtype=np.float32)
    weights = random.standard_normal((608, 576), dtype=np.float32)
    (together,) = multiplied(linears, rows, weights)
    for begin, count in ((0, 1), (5, 17), (127, 3), (149, 1), (3, 64)):
        (some,) = multiplied(linears, np.ascontiguousarray(rows[begin : begin + count]), weights)
        assert np.array_equal(some, together[begin : begin + count])


def test_an_aborted_step_is_computed_again_to_the_bit(split_model):
    step = [Span(list(range(100 * row, 100 * row + 60)), 0, [2 * row, 2 * row + 1], (59,)) for row in range(3)]
    expected = split_model.forward(step).copy()
    abort = StepAbort()
    abort.ask()
    with pytest.raises(StepAborted):
        split_model.forward([step[0]._replace(tokens=[7] * 60)], abort)
    assert np.array_equal(split_model.forward(step), expected)


def test_running_does_not_grow_the_memory_of_the_process(split_model):
    step = [Span(list(range(32)), 0, [0], (31,))]

    def memory_after(steps: int) -> int:
        for _ in range(steps):
            split_model.forward(step)
        return psutil.Process().memory_info().rss

    before = memory_after(10)
    assert memory_after(50) - before < 4e6


def test_a_model_that_is_gone_leaves_no_memory_behind(linears, pulled_model):
    folder = prepare(locate(pulled_model), "f16").folder

    def memory_after_another() -> int:
        model = PagedModel(folder, 2**28, precision="bf16x3")
        model.forward([Span(list(range(32)), 0, [0], (31,))])
        del model
        return psutil.Process().memory_info().rss

    memory_after_another()
    before = memory_after_another()
    # Its weights are 540 MB.
    assert memory_after_another() - before < 100e6


def test_weights_that_are_no_floats_are_left_to_openvino(linears, pulled_model):
    with pytest.raises(KernelMissingError, match="weights are not stored as floats"):
        PagedModel(prepare(locate(pulled_model), "q8_0").folder, 2**26, precision="bf16x3")


#: Of a model that is never loaded.
ENCODER: Any = None
GOOD = Measured(prefill=1.5, decode=1.2, difference=0.0003)


@pytest.mark.parametrize(
    ("changed", "chosen"),
    [
        ({}, "bf16x3"),
        ({"prefill": 1.1}, "f32"),
        ({"decode": 0.9}, "f32"),
        ({"decode": 0.97}, "bf16x3"),
        ({"difference": 0.02}, "f32"),
        ({"difference": float("nan")}, "f32"),
    ],
)
def test_what_is_chosen_is_faster_and_as_accurate(changed, chosen):
    found = decide(msgspec.structs.replace(GOOD, **changed))
    assert found.precision == chosen and "log-probabilities differed by at most" in found.because


def test_a_difference_is_of_log_probabilities_among_the_most_probable():
    expected = np.zeros((2, 100), np.float32)
    expected[:, :30] = 10
    found = expected.copy()
    assert largest_difference(expected, found + 3) < 1e-6
    found[0, 99] = 5
    assert largest_difference(expected, found) < 1e-3
    found[:, :30] += np.linspace(0, 1, 30, dtype=np.float32)
    assert 0.3 < largest_difference(expected, found) < 1


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Setting:
    """On a processor with AMX, with a cache of its own, of a model that is never loaded."""
    monkeypatch.setattr(precision, "amx_is_here", lambda: True)
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("openvino", reason="pip install 'gristmill[embedded]' to run this")
    (tmp_path / "openvino_model.xml").write_text("<net/>")
    (tmp_path / "openvino_model.bin").write_bytes(b"weights")
    return Setting(tmp_path, "2 shared", None)  # type: ignore[arg-type]


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[Setting]:
    made: list[Setting] = []

    def measure(setting: Setting, encoder: object) -> Measured:
        made.append(setting)
        return GOOD

    monkeypatch.setattr(precision, "measure", measure)
    return made


def test_it_is_measured_once_for_a_model_and_a_way_to_run_it(setting, measurements):
    assert choose_precision("auto", setting, ENCODER) == choose_precision("auto", setting, ENCODER) == decide(GOOD)
    assert len(measurements) == 1
    choose_precision("auto", setting._replace(options="1 shared"), ENCODER)
    (setting.folder / "openvino_model.bin").write_bytes(b"other weights")
    choose_precision("auto", setting, ENCODER)
    assert len(measurements) == 3


def test_weights_are_told_apart_by_what_they_are_and_not_by_when_they_were_written(setting, measurements):
    weights = setting.folder / "openvino_model.bin"
    choose_precision("auto", setting, ENCODER)
    written = weights.stat().st_mtime_ns
    os.utime(weights, ns=(1, 1))
    choose_precision("auto", setting, ENCODER)
    assert len(measurements) == 1
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(written, written))
    choose_precision("auto", setting, ENCODER)
    assert len(measurements) == 2


def test_what_was_measured_and_cannot_be_read_or_kept_is_measured_again(setting, measurements, tmp_path):
    choose_precision("auto", setting, ENCODER)
    (kept,) = (tmp_path / "cache" / "precision").iterdir()
    kept.write_bytes(b'{"prefill": 1')
    assert choose_precision("auto", setting, ENCODER).precision == "bf16x3" and len(measurements) == 2
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_bytes(b"not a folder")
    assert choose_precision("auto", setting, ENCODER).precision == "bf16x3" and len(measurements) == 3


def test_a_kernel_that_is_missing_leaves_f32_and_the_reason(setting, monkeypatch):
    def measure(setting: Setting, encoder: object) -> Measured:
        raise KernelMissingError("no C compiler was found")

    monkeypatch.setattr(precision, "measure", measure)
    assert choose_precision("auto", setting, ENCODER) == ("f32", "bf16x3 cannot be used: no C compiler was found")


def test_without_amx_nothing_is_measured_and_what_needs_it_is_refused(setting, measurements, monkeypatch):
    monkeypatch.setattr(precision, "amx_is_here", lambda: False)
    assert choose_precision("auto", setting, ENCODER) == choose_precision("f32", setting, ENCODER) == ("f32", "")
    for wanted in ("bf16", "bf16x3"):
        with pytest.raises(UserError, match=f"no AMX, which precision={wanted} is for"):
            choose_precision(wanted, setting, ENCODER)
    assert measurements == []


def test_what_was_chosen_and_cannot_be_loaded_any_more_is_f32(monkeypatch, pulled_model):
    monkeypatch.setattr(loading, "choose_precision", lambda *_: Chosen("bf16x3", "it was faster"))
    monkeypatch.setattr(split_linear, "amx_is_here", lambda: False)
    loaded = loading.load_model(pulled_model, {"kv_cache_gb": 0.1})
    told = msgspec.structs.replace(loaded.computing, build=None, threads=None, chat_template=None)
    assert told == Computing("the CPU, in f32 (bf16x3 cannot be used: this processor has no AMX)")
    with pytest.raises(UserError, match="cannot be computed with precision=bf16x3: this processor has no AMX"):
        loading.load_model(pulled_model, {"kv_cache_gb": 0.1, "precision": "bf16x3"})


def test_a_real_measurement_finds_the_difference_small(linears, pulled_model):
    folder = prepare(locate(pulled_model), "f16").folder
    setting = Setting(folder, "", lambda chosen: PagedModel(folder, 2**26, precision=chosen))
    found = precision.measure(setting, ModelVocabulary(folder))
    assert found.prefill > 0 and found.decode > 0 and 0 < found.difference < precision.MOST_DIFFERENCE


async def test_answers_of_another_precision_have_another_fingerprint(monkeypatch):
    engine = OpenVinoEngine(OpenVinoOptions())
    monkeypatch.setattr(engine, "model_fingerprint", lambda: "files")
    found = []
    for computing in (None, Computing("the CPU"), Computing("the CPU", precision="bf16x3")):
        engine._note_ready(Ready(2048, [], 64, 2048, computing=computing))
        found.append(await engine.fingerprint())
    assert found[0] == found[1] != found[2]
