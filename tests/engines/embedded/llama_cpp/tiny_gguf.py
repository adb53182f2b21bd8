"""Models of a few kilobytes with random weights, to be loaded for real: every byte is a token."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

#: <unk>, <s>, </s>, then the 256 bytes, and the space, which such vocabularies spell as another character.
VOCABULARY = 260
SPACE = VOCABULARY - 1
WIDTH, HEADS, LAYERS, FORWARD = 64, 2, 2, 96


def token_ids(text: str) -> list[int]:
    return [SPACE if byte == ord(" ") else 3 + byte for byte in text.encode()]


class TinyModel:
    """Writes a GGUF file piece by piece, so that a test can leave out or change any."""

    def __init__(self, path: Path, architecture: str = "llama", window: int = 0, weights: str = "F32") -> None:
        self.path = path
        self.writer = gguf.GGUFWriter(str(path), architecture)
        self.architecture = architecture
        self.window = window
        self._type = gguf.GGMLQuantizationType[weights]
        self._random = np.random.default_rng(7)

    def sizes(self, context_length: int = 4096) -> TinyModel:
        writer = self.writer
        writer.add_context_length(context_length)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(FORWARD)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(HEADS)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_dimension_count(WIDTH // HEADS)
        if self.window:
            writer.add_sliding_window(self.window)
            writer.add_key_length(WIDTH // HEADS)
            writer.add_value_length(WIDTH // HEADS)
        return self

    def vocabulary(self) -> TinyModel:
        writer, types = self.writer, gguf.TokenType
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581"]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([0.0] * len(tokens))
        writer.add_token_types([types.UNKNOWN, types.CONTROL, types.CONTROL, *[types.BYTE] * 256, types.NORMAL])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_space_prefix(False)
        return self

    def weights(self) -> TinyModel:
        self._matrix("token_embd", VOCABULARY, WIDTH)
        self._ones("output_norm")
        if self.architecture == "llama":
            self._matrix("output", VOCABULARY, WIDTH)
        for layer in range(LAYERS):
            name = f"blk.{layer}."
            norms = ["attn_norm", "ffn_norm"]
            if self.architecture == "gemma3":
                norms += ["post_attention_norm", "post_ffw_norm"]
                self._ones(name + "attn_q_norm", WIDTH // HEADS)
                self._ones(name + "attn_k_norm", WIDTH // HEADS)
            for norm in norms:
                self._ones(name + norm)
            for each in ("attn_q", "attn_k", "attn_v", "attn_output"):
                self._matrix(name + each, WIDTH, WIDTH)
            self._matrix(name + "ffn_gate", FORWARD, WIDTH)
            self._matrix(name + "ffn_up", FORWARD, WIDTH)
            self._matrix(name + "ffn_down", WIDTH, FORWARD)
        return self

    def write(self) -> Path:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
        return self.path

    def _matrix(self, name: str, rows: int, columns: int) -> None:
        values = self._random.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)
        self.writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, self._type), raw_dtype=self._type)

    def _ones(self, name: str, size: int = WIDTH) -> None:
        self.writer.add_tensor(f"{name}.weight", np.ones(size, np.float32))


def tiny_model(path: Path, architecture: str = "llama", window: int = 0, weights: str = "F32") -> Path:
    """``weights``: the type of the matrices, of those whose blocks have 32 values."""
    return TinyModel(path, architecture, window, weights).sizes().vocabulary().weights().write()


def tiny_mamba(path: Path) -> Path:
    """A recurrent model: instead of keys and values it has a state."""
    model, inner, state, rank, kernel = TinyModel(path, "mamba"), 2 * WIDTH, 8, 4, 4
    writer = model.writer
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(LAYERS)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-6)
    model.vocabulary()
    model._matrix("token_embd", VOCABULARY, WIDTH)
    model._matrix("output", VOCABULARY, WIDTH)
    model._ones("output_norm")
    for layer in range(LAYERS):
        name = f"blk.{layer}."
        model._ones(name + "attn_norm")
        model._matrix(name + "ssm_in", 2 * inner, WIDTH)
        model._matrix(name + "ssm_conv1d", inner, kernel)
        model._matrix(name + "ssm_x", rank + 2 * state, inner)
        model._matrix(name + "ssm_dt", inner, rank)
        model._matrix(name + "ssm_out", WIDTH, inner)
        for vector in ("ssm_conv1d.bias", "ssm_dt.bias", "ssm_d"):
            writer.add_tensor(name + vector, np.ones(inner, np.float32) / 2)
        writer.add_tensor(name + "ssm_a", -np.tile(np.arange(1, state + 1, dtype=np.float32), (inner, 1)))
    return model.write()
