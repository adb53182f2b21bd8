"""A GGUF whose weights OpenVINO's reader gets wrong or refuses, written again in a type it reads exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from gristmill.models.extra import require
from gristmill.user_error import UserError

#: Measured: float types are read exactly; Q8_0 closely; Q4_1 wrongly; K-quants are refused.
_READ_EXACTLY = frozenset({"F32", "F16"})


def needs_reencoding(gguf_file: Path, weights: Literal["f16", "q8_0"]) -> bool:
    accepted = _READ_EXACTLY if weights == "f16" else _READ_EXACTLY | {"Q8_0"}
    types = {tensor.tensor_type.name for tensor in _reader(gguf_file).tensors}
    if weights == "q8_0":
        return "Q8_0" not in types or not types <= accepted
    return not types <= accepted


def reencode(source: Path, target: Path, weights: Literal["f16", "q8_0"]) -> None:
    """Write ``source`` to ``target`` with every quantized matrix as ``weights``, metadata unchanged."""
    gguf = require("gguf")
    kinds = gguf.GGMLQuantizationType
    reader = _reader(source)
    writer = gguf.GGUFWriter(str(target), reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if weights == "f16" else gguf.LlamaFileType.MOSTLY_Q8_0)
    for tensor in reader.tensors:
        if tensor.tensor_type == kinds.F32 and len(tensor.shape) < 2:
            writer.add_tensor(tensor.name, tensor.data.copy())
            continue
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if weights == "f16":
            writer.add_tensor(tensor.name, values.astype("float16"))
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, kinds.Q8_0), raw_dtype=kinds.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def metadata(gguf_file: Path) -> dict[str, Any]:
    """The small values of the header (not the arrays)."""
    return {name: field.contents() for name, field in _reader(gguf_file).fields.items() if len(field.data) == 1}


def _reader(gguf_file: Path) -> Any:
    try:
        return require("gguf").GGUFReader(gguf_file)
    except ValueError as error:
        raise UserError(f"The GGUF file '{gguf_file}' cannot be read: {error}.") from error
