"""Projectors of a few kilobytes with random weights: images to vectors as wide as those of a ``tiny_gguf`` model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from tiny_gguf import WIDTH

#: Of the encoder.
_WIDTH, _HEADS, _LAYERS, _FORWARD, _PATCH = 32, 2, 2, 64, 8
Kind = Literal["mlp", "gemma3"]


def tiny_projector(path: Path, kind: Kind, width: int = WIDTH) -> Path:
    """``mlp`` is LLaVA's: 16 vectors an image, which see only those before them. ``gemma3``: 4 vectors, which all see
    each other, between texts that say where an image begins and ends."""
    writer = gguf.GGUFWriter(str(path), "clip")
    image = 32 if kind == "mlp" else 64
    writer.add_string("general.type", "mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", kind)
    writer.add_bool("clip.use_gelu", True)
    sizes = {
        "image_size": image, "patch_size": _PATCH, "embedding_length": _WIDTH, "feed_forward_length": _FORWARD,
        "block_count": _LAYERS, "projection_dim": width, "attention.head_count": _HEADS,
    }  # fmt: skip
    for name, value in sizes.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    for name, shape in _tensors(kind, (image // _PATCH) ** 2, width).items():
        random = np.random.default_rng(len(writer.tensors[0]))
        norm = name.endswith(("ln.weight", "ln1.weight", "ln2.weight", "norm.weight"))
        values = np.ones(shape) if norm else random.normal(0, 0.3 if len(shape) > 2 else shape[-1] ** -0.5, shape)
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(kind: Kind, patches: int, width: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"v.patch_embd.weight": (_WIDTH, 3, _PATCH, _PATCH)}
    if kind == "mlp":
        found |= {"v.position_embd.weight": (patches + 1, _WIDTH), "v.class_embd": (_WIDTH,)}
        found |= {"v.pre_ln.weight": (_WIDTH,), "v.pre_ln.bias": (_WIDTH,)}
        found |= {"mm.0.weight": (width, _WIDTH), "mm.0.bias": (width,)}
        found |= {"mm.2.weight": (width, width), "mm.2.bias": (width,)}
    else:
        found |= {"v.position_embd.weight": (patches, _WIDTH), "v.patch_embd.bias": (_WIDTH,)}
        found |= {"v.post_ln.weight": (_WIDTH,), "v.post_ln.bias": (_WIDTH,)}
        found |= {"mm.input_projection.weight": (_WIDTH, width), "mm.soft_emb_norm.weight": (_WIDTH,)}
    for layer in range(_LAYERS):
        block = f"v.blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            found |= {f"{block}{name}.weight": (_WIDTH, _WIDTH), f"{block}{name}.bias": (_WIDTH,)}
        for name in ("ln1", "ln2"):
            found |= {f"{block}{name}.weight": (_WIDTH,), f"{block}{name}.bias": (_WIDTH,)}
        found |= {f"{block}ffn_up.weight": (_FORWARD, _WIDTH), f"{block}ffn_up.bias": (_FORWARD,)}
        found |= {f"{block}ffn_down.weight": (_WIDTH, _FORWARD), f"{block}ffn_down.bias": (_WIDTH,)}
    return found
