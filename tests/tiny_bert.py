"""A tiny BERT with random weights, three times: in numpy as the reference, as an OpenVINO IR folder, as a GGUF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEADS, INNER, LAYERS, POSITIONS, EPSILON = 32, 4, 64, 2, 48, 1e-12
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
WORDS = ["the", "cat", "sat", "on", "mat", "dog", "ran", "far", "away", "home", "two", "three", "red", "blue", "house"]
VOCABULARY = [*_SPECIAL, *WORDS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]

Weights = dict[str, NDArray[np.float32]]


def weights() -> Weights:
    """By the names that GGUF files of a BERT have; matrices as (outputs, inputs)."""
    random = np.random.default_rng(7)

    def drawn(*shape: int, around: float = 0.0, scale: float = 0.3) -> NDArray[np.float32]:
        return (around + random.normal(0.0, scale, shape)).astype(np.float32)

    made = {
        "token_embd": drawn(len(VOCABULARY), WIDTH, scale=1.0),
        "position_embd": drawn(POSITIONS, WIDTH),
        "token_types": drawn(2, WIDTH),
        "token_embd_norm": drawn(WIDTH, around=1.0),
        "token_embd_norm.b": drawn(WIDTH),
    }
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            made[f"blk.{layer}.{name}"] = drawn(WIDTH, WIDTH)
            made[f"blk.{layer}.{name}.b"] = drawn(WIDTH)
        made[f"blk.{layer}.ffn_up"], made[f"blk.{layer}.ffn_up.b"] = drawn(INNER, WIDTH), drawn(INNER)
        made[f"blk.{layer}.ffn_down"], made[f"blk.{layer}.ffn_down.b"] = drawn(WIDTH, INNER), drawn(WIDTH)
        for name in ("attn_output_norm", "layer_output_norm"):
            made[f"blk.{layer}.{name}"], made[f"blk.{layer}.{name}.b"] = drawn(WIDTH, around=1.0), drawn(WIDTH)
    return made


def hidden_states(tokens: list[int]) -> NDArray[np.float32]:
    """What the last layer gives for each token, shape (tokens, width)."""
    model = weights()

    def linear(values: NDArray[Any], name: str) -> NDArray[Any]:
        return values @ model[name].T + model[f"{name}.b"]

    def norm(values: NDArray[Any], name: str) -> NDArray[Any]:
        centred = values - values.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * model[name] + model[f"{name}.b"]

    def heads(values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape(len(tokens), HEADS, -1).swapaxes(0, 1)

    state = model["token_embd"][tokens] + model["position_embd"][: len(tokens)] + model["token_types"][0]
    state = norm(state, "token_embd_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        query, key, value = (heads(linear(state, block + name)) for name in ("attn_q", "attn_k", "attn_v"))
        scores = query @ key.swapaxes(1, 2) / np.sqrt(WIDTH / HEADS)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ value
        mixed = linear(mixed.swapaxes(0, 1).reshape(len(tokens), WIDTH), block + "attn_output")
        state = norm(state + mixed, block + "attn_output_norm")
        inner = gelu(linear(state, block + "ffn_up"))
        state = norm(state + linear(inner, block + "ffn_down"), block + "layer_output_norm")
    return np.asarray(state, np.float32)


def gelu(values: NDArray[Any]) -> NDArray[Any]:
    """By tanh, as ggml computes it."""
    return 0.5 * values * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (values + 0.044715 * values**3)))


def vector(tokens: list[int], pooling: str) -> NDArray[np.float32]:
    """Pooled, and of length 1."""
    states = hidden_states(tokens)
    pooled = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
    return np.asarray(pooled / np.linalg.norm(pooled), np.float32)


def tokens_of(text: str) -> list[int]:
    """Of a text of the vocabulary's words."""
    return [VOCABULARY.index(each) for each in ("[CLS]", *text.split(), "[SEP]")]


def write_tokenizer(folder: Path) -> None:
    tokenizers = __import__("tokenizers")
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(each, ids[each]) for each in ("[CLS]", "[SEP]")]
    )
    tokenizer.add_special_tokens(_SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_ir(folder: Path, pooling: str = "mean", normalised: bool = True, **config: Any) -> Path:
    """A folder as optimum-intel and sentence-transformers write them. ``config``: fields of config.json besides."""
    import openvino as ov

    folder.mkdir(parents=True)
    ov.save_model(_graph(), folder / "openvino_model.xml", compress_to_fp16=False)
    write_tokenizer(folder)
    sizes = {"vocab_size": len(VOCABULARY), "max_position_embeddings": POSITIONS, "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(sizes | config))
    kinds = ["Transformer", "Pooling"] + (["Normalize"] if normalised else [])
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in zip(kinds, paths, strict=False)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    name = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}[pooling]
    modes = {f"pooling_mode_{each}": each == name for each in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": WIDTH} | modes))
    return folder


def _graph() -> Any:
    import openvino as ov
    from openvino import opset13 as op

    model = weights()
    ids, mask, kinds = (op.parameter([-1, -1], ov.Type.i64, name=name) for name in _INPUTS)

    def rows(name: str, indices: Any) -> Any:
        return op.gather(op.constant(model[name]), indices, op.constant(0))

    def linear(values: Any, name: str) -> Any:
        product = op.matmul(values, op.constant(model[name]), False, True)
        return op.add(product, op.constant(model[f"{name}.b"]))

    def norm(values: Any, name: str) -> Any:
        shaped = op.mvn(values, op.constant(np.array([-1])), True, EPSILON, "inside_sqrt")
        return op.add(op.multiply(shaped, op.constant(model[name])), op.constant(model[f"{name}.b"]))

    def heads(values: Any) -> Any:
        split = op.reshape(values, op.constant(np.array([0, 0, HEADS, WIDTH // HEADS])), True)
        return op.transpose(split, op.constant(np.array([0, 2, 1, 3])))

    length = op.gather(op.shape_of(ids), op.constant(1), op.constant(0))
    places = op.range(op.constant(0, ov.Type.i64), length, op.constant(1, ov.Type.i64), "i64")
    state = op.add(op.add(rows("token_embd", ids), rows("position_embd", places)), rows("token_types", kinds))
    state = norm(state, "token_embd_norm")
    seen = op.unsqueeze(op.convert(mask, "f32"), op.constant(np.array([1, 2])))
    hiding = op.multiply(op.subtract(op.constant(np.float32(1)), seen), op.constant(np.float32(-1e9)))
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        query, key, value = (heads(linear(state, block + name)) for name in ("attn_q", "attn_k", "attn_v"))
        scores = op.multiply(op.matmul(query, key, False, True), op.constant(np.float32((WIDTH / HEADS) ** -0.5)))
        mixed = op.matmul(op.softmax(op.add(scores, hiding), -1), value, False, False)
        mixed = op.transpose(mixed, op.constant(np.array([0, 2, 1, 3])))
        mixed = op.reshape(mixed, op.constant(np.array([0, 0, WIDTH])), True)
        state = norm(op.add(state, linear(mixed, block + "attn_output")), block + "attn_output_norm")
        inner = op.gelu(linear(state, block + "ffn_up"), "tanh")
        state = norm(op.add(state, linear(inner, block + "ffn_down")), block + "layer_output_norm")
    result = op.result(state)
    result.output(0).set_names({"last_hidden_state"})
    state.output(0).set_names({"last_hidden_state"})
    for parameter, name in zip((ids, mask, kinds), _INPUTS, strict=True):
        parameter.output(0).set_names({name})
    return ov.Model([result], [ids, mask, kinds], "tiny_bert")


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def write_gguf(file: Path, pooling: str = "mean") -> Path:
    """The weights in float32; the vocabulary as llama.cpp's converter writes WordPiece: words begin with U+2581."""
    import gguf

    file.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(file), "bert")
    writer.add_name("tiny-bert")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType[pooling.upper()])
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(2)
    spelled = [each[2:] if each.startswith("##") else each if each in _SPECIAL else f"▁{each}" for each in VOCABULARY]
    writer.add_token_list(spelled)
    writer.add_token_types([3 if each in _SPECIAL else 1 for each in VOCABULARY])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_unk_token_id(1)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_mask_token_id(4)
    for name, values in weights().items():
        writer.add_tensor(f"{name.removesuffix('.b')}.bias" if name.endswith(".b") else f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
