"""Gemma 3 from a GGUF file, as OpenVINO computes it, against the same written out in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("openvino", reason="pip install 'gristmill[embedded]' to run this")

import openvino
from gguf import GGUFWriter

from gristmill.engines.embedded.model_runner import Span
from gristmill.engines.embedded.openvino.gemma3_graph import Gemma3Shape, build_graph, read_shape
from gristmill.engines.embedded.openvino.paged_model import PagedModel
from gristmill.engines.embedded.openvino.prepare import prepare
from gristmill.models.locate import LocalModel
from gristmill.user_error import UserError

METADATA = {
    "gemma3.block_count": 7,
    "gemma3.embedding_length": 64,
    "gemma3.attention.head_count": 4,
    "gemma3.attention.head_count_kv": 2,
    "gemma3.attention.key_length": 32,
    "gemma3.attention.sliding_window": 40,
    "gemma3.attention.layer_norm_rms_epsilon": 1e-6,
    "gemma3.rope.freq_base": 1_000_000.0,
    "gemma3.rope.scaling.type": "linear",
    "gemma3.rope.scaling.factor": 8.0,
}
TOKENS = 300
FEED_FORWARD = 96


def random_tensors(shape: Gemma3Shape) -> dict[str, np.ndarray]:
    """Weights that f16 holds exactly, large enough that tokens differ."""
    draw = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return draw.normal(0, columns**-0.5, (rows, columns)).astype(np.float16).astype(np.float32)

    def norm(width: int) -> np.ndarray:
        return draw.normal(1, 0.2, width).astype(np.float32)

    inner, kv = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    tensors = {"token_embd.weight": matrix(TOKENS, shape.width), "output_norm.weight": norm(shape.width)}
    for layer in range(len(shape.windows)):
        tensors |= {
            f"blk.{layer}.{name}.weight": value
            for name, value in {
                "attn_norm": norm(shape.width),
                "attn_q": matrix(inner, shape.width),
                "attn_k": matrix(kv, shape.width),
                "attn_v": matrix(kv, shape.width),
                "attn_q_norm": norm(shape.head_size),
                "attn_k_norm": norm(shape.head_size),
                "attn_output": matrix(shape.width, inner),
                "post_attention_norm": norm(shape.width),
                "ffn_norm": norm(shape.width),
                "ffn_gate": matrix(FEED_FORWARD, shape.width),
                "ffn_up": matrix(FEED_FORWARD, shape.width),
                "ffn_down": matrix(shape.width, FEED_FORWARD),
                "post_ffw_norm": norm(shape.width),
            }.items()
        }
    return tensors


def logits_in_numpy(shape: Gemma3Shape, tensors: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """Of every position, shape (tokens, vocabulary)."""
    positions = np.arange(len(tokens))

    def norm(rows: np.ndarray, name: str) -> np.ndarray:
        return rows / np.sqrt((rows * rows).mean(-1, keepdims=True) + shape.epsilon) * tensors[name + ".weight"]

    def rotated(heads: np.ndarray, window: int) -> np.ndarray:
        base, scale = (shape.local_rope_base, 1.0) if window else (shape.rope_base, shape.rope_scale)
        half = shape.head_size // 2
        angles = positions[:, None] * scale / base ** (np.arange(half) / half)
        first, second = heads[..., :half], heads[..., half:]
        return np.concatenate(
            [
                first * np.cos(angles) - second * np.sin(angles),
                second * np.cos(angles) + first * np.sin(angles),
            ],
            -1,
        )

    def split(rows: np.ndarray) -> np.ndarray:
        return rows.reshape(len(tokens), -1, shape.head_size).transpose(1, 0, 2)

    embedding = tensors["token_embd.weight"].astype(np.float64)
    hidden = embedding[tokens] * shape.width**0.5
    for layer, window in enumerate(shape.windows):
        blk = f"blk.{layer}."
        normed = norm(hidden, blk + "attn_norm")
        queries = rotated(norm(split(normed @ tensors[blk + "attn_q.weight"].T), blk + "attn_q_norm"), window)
        keys = rotated(norm(split(normed @ tensors[blk + "attn_k.weight"].T), blk + "attn_k_norm"), window)
        values = split(normed @ tensors[blk + "attn_v.weight"].T)
        keys, values = (np.repeat(each, shape.heads // shape.kv_heads, 0) for each in (keys, values))
        distance = positions[:, None] - positions
        visible = (distance >= 0) & (distance < (window or len(tokens)))
        scores = np.where(visible, queries @ keys.transpose(0, 2, 1) * shape.attention_scale, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (weights / weights.sum(-1, keepdims=True)) @ values
        rows = attended.transpose(1, 0, 2).reshape(len(tokens), -1) @ tensors[blk + "attn_output.weight"].T
        hidden = hidden + norm(rows, blk + "post_attention_norm")
        normed = norm(hidden, blk + "ffn_norm")
        gate = normed @ tensors[blk + "ffn_gate.weight"].T
        gate = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        rows = (gate * (normed @ tensors[blk + "ffn_up.weight"].T)) @ tensors[blk + "ffn_down.weight"].T
        hidden = hidden + norm(rows, blk + "post_ffw_norm")
    return norm(hidden, "output_norm") @ embedding.T


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Gemma3Shape, dict[str, np.ndarray]]:
    shape = read_shape(METADATA)
    tensors = random_tensors(shape)
    path = tmp_path_factory.mktemp("gemma3") / "tiny.gguf"
    writer = GGUFWriter(path, "gemma3")
    writer.add_context_length(8192)
    writer.add_block_count(7)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_key_length(32)
    writer.add_value_length(32)
    writer.add_sliding_window(40)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_string("gemma3.rope.scaling.type", "linear")
    writer.add_rope_scaling_factor(8.0)
    writer.add_eos_token_id(1)
    for name, value in tensors.items():
        writer.add_tensor(name, value.astype(np.float16) if value.ndim == 2 else value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, shape, tensors


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


@pytest.fixture(scope="module", params=["shared", "openvino"])
def model(request, tiny, tmp_path_factory) -> PagedModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRISTMILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder, facts = prepare(LocalModel("tiny", tiny[0], "gguf"), "f16")
        assert facts.windows == [40, 40, 40, 40, 40, 0, 40]
        return PagedModel(folder, 2**26, 1, request.param, facts.windows)


def test_every_position_is_as_computed_by_hand_beyond_the_window_too(model, tiny):
    _, shape, tensors = tiny
    tokens = np.random.default_rng(1).integers(2, TOKENS, 150).tolist()
    blocks = list(range(-(-150 // model.block_size)))
    found = model.forward([Span(tokens, 0, blocks, tuple(range(150)))])
    expected = logits_in_numpy(shape, tensors, tokens)
    assert np.abs(log_softmax(found) - log_softmax(expected)).max() < 1e-3


@given(st.integers(1, 149), st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_a_prompt_computed_in_two_steps_is_as_one(model, tiny, cut, seed):
    _, shape, tensors = tiny
    tokens = np.random.default_rng(seed).integers(2, TOKENS, 150).tolist()
    blocks = list(range(-(-150 // model.block_size)))
    model.forward([Span(tokens[:cut], 0, blocks, ())])
    found = model.forward([Span(tokens[cut:], cut, blocks, (149 - cut,))])
    expected = logits_in_numpy(shape, tensors, tokens)[-1:]
    assert np.abs(log_softmax(found) - log_softmax(expected)).max() < 1e-3


def test_the_graph_as_it_stands_computes_the_same_of_several_rows_of_different_lengths(tiny):
    """As models are run that embed: no KV cache, rows filled up at their ends."""
    _, shape, tensors = tiny
    rows = [np.random.default_rng(seed).integers(2, TOKENS, length) for seed, length in ((1, 90), (2, 60))]
    padded = np.array([np.pad(row, (0, 90 - len(row))) for row in rows])
    graph = openvino.compile_model(build_graph(shape, tensors.__getitem__), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = graph(
        {
            "input_ids": padded,
            "attention_mask": (np.arange(90) < [[90], [60]]).astype(np.int64),
            "position_ids": np.broadcast_to(np.arange(90), padded.shape),
            "beam_idx": np.arange(2, dtype=np.int32),
        }
    )[0]
    for row, logits in zip(rows, found, strict=True):
        expected = logits_in_numpy(shape, tensors, row.tolist())
        assert np.abs(log_softmax(logits[: len(row)]) - log_softmax(expected)).max() < 1e-3


def test_a_file_that_does_not_say_its_shape_is_refused_by_the_name_of_what_is_missing():
    with pytest.raises(UserError, match=r"gemma3\.attention\.key_length"):
        read_shape({name: value for name, value in METADATA.items() if "key_length" not in name})


@pytest.mark.parametrize(
    "more", [{"gemma3.final_logit_softcapping": 30.0}, {"gemma3.rope.scaling.type": "yarn"}], ids=["softcap", "yarn"]
)
def test_a_variant_that_is_not_computed_is_refused_and_another_engine_named(more):
    with pytest.raises(UserError, match="llama_cpp"):
        read_shape(METADATA | more)


def test_the_27b_model_scales_attention_by_its_width():
    assert read_shape(METADATA | {"gemma3.block_count": 62}).attention_scale == (64 // 4) ** -0.5
