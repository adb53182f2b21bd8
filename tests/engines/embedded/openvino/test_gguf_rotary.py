"""Rotary frequencies of GGUF files: exact, and with the scaling that OpenVINO's reader leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("openvino", reason="pip install 'gristmill[embedded]' to run this")

from gristmill.engines.embedded.openvino.gguf_rotary import mend_frequencies
from gristmill.engines.embedded.openvino.prepare import prepare
from gristmill.extras import require
from gristmill.models.locate import locate
from gristmill.user_error import UserError

PAIRS, BASE = 16, 500_000.0
EXACT = BASE ** -(np.arange(PAIRS) / PAIRS)
FACTORS = np.linspace(1, 8, PAIRS).astype(np.float32)


class Value(NamedTuple):
    value: Any

    def contents(self) -> Any:
        return self.value


class Tensor(NamedTuple):
    name: str
    data: Any


class File:
    """As the gguf package reads one."""

    def __init__(self, metadata: dict[str, Any], factors: Any = None) -> None:
        told = {"general.architecture": "llama", "llama.rope.freq_base": BASE} | metadata
        self.fields = {name: Value(value) for name, value in told.items()}
        self.tensors = [] if factors is None else [Tensor("rope_freqs.weight", factors)]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Cosines of angles, as OpenVINO saves a graph that it made of a GGUF file."""
    ov = require("openvino")
    ops = ov.opset13
    positions = ops.parameter([-1, 1], ov.Type.f32)
    angles = ops.multiply(positions, ops.constant(EXACT.astype(np.float32).reshape(1, PAIRS)))
    path = tmp_path / "openvino_model.xml"
    ov.save_model(ov.Model([ops.cos(angles)], [positions]), path, compress_to_fp16=True)
    return path


def difference(graph: Path, frequencies: Any) -> float:
    positions = np.arange(2000, dtype=np.float32).reshape(-1, 1)
    found = require("openvino").compile_model(graph, "CPU")([positions])[0]
    return float(np.abs(found - np.cos(positions.astype(np.float64) * frequencies)).max())


def test_frequencies_that_were_rounded_to_float16_are_exact_again(graph: Path) -> None:
    assert difference(graph, EXACT) > 0.1
    mend_frequencies(Path("m.gguf"), graph, File({}))
    assert difference(graph, EXACT) < 1e-3


@pytest.mark.parametrize(
    ("file", "divisor"),
    [
        (File({}, FACTORS), FACTORS),
        (File({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}), 4.0),
        (File({"llama.rope.scaling.type": "none"}), 1.0),
    ],
    ids=["factors of Llama 3.1", "linear", "none"],
)
def test_the_scaling_that_a_file_tells_of_is_computed(graph: Path, file: File, divisor: Any) -> None:
    mend_frequencies(Path("m.gguf"), graph, file)
    assert difference(graph, EXACT / divisor) < 1e-3
    assert sorted(each.name for each in graph.parent.iterdir()) == ["openvino_model.bin", "openvino_model.xml"]


def test_a_scaling_that_is_not_known_is_refused_by_name(graph: Path) -> None:
    with pytest.raises(UserError, match="leaves out the rotary scaling 'yarn'.*--engine llama_cpp"):
        mend_frequencies(Path("m.gguf"), graph, File({"llama.rope.scaling.type": "yarn"}))


def test_a_graph_without_such_frequencies_is_refused(graph: Path) -> None:
    with pytest.raises(UserError, match="something unknown"):
        mend_frequencies(Path("m.gguf"), graph, File({"llama.rope.freq_base": 10_000.0}))


def test_a_prepared_model_has_exact_frequencies(pulled_model: str) -> None:
    ov = require("openvino")
    folder = prepare(locate(pulled_model), "f16").folder
    model = ov.Core().read_model(folder / "openvino_model.xml")
    wanted = (100_000.0 ** -(np.arange(32) / 32)).astype(np.float32)
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    assert any(node.data.size == 32 and np.array_equal(node.data.reshape(-1), wanted) for node in constants)
