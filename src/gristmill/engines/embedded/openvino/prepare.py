"""From a model on this machine to a folder the engine can load: OpenVINO IR, tokenizer, and a few facts."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from gristmill.engines.embedded.openvino.gemma3_graph import ARCHITECTURE, build_graph, read_shape
from gristmill.engines.embedded.openvino.gguf_rotary import mend_frequencies
from gristmill.extras import require
from gristmill.models.cache import cache_folder, make_private
from gristmill.models.ir_folder import MODEL_FILE
from gristmill.models.locate import LocalModel
from gristmill.user_error import UserError

#: Measured: float types are read exactly; Q8_0 closely; Q4_1 wrongly; K-quants are refused.
_READ_EXACTLY = frozenset({"F32", "F16"})
#: Part of the cache key: raise it when this file writes anything differently.
_CONVERTER = 2
_FACTS = "gristmill.json"


class PreparedFacts(msgspec.Struct, frozen=True):
    """What the graph does not say: context length in tokens, the token ids that end an answer, and how many tokens
    each layer's attention reaches back (0: all; empty where the graph says it).

    ``first_context``, where the model has two sets of rotary factors: the longest sequence that the first is for.
    ``score_cap``: the soft cap of attention scores (Gemma 2; optimum-intel leaves it out of the graph), 0 for none."""

    context_length: int
    eos_token_ids: list[int]
    windows: list[int] = []
    first_context: int | None = None
    score_cap: float = 0.0


class PreparedModel(NamedTuple):
    folder: Path
    facts: PreparedFacts


def prepare(model: LocalModel, weights: Literal["f16", "q8_0"]) -> PreparedModel:
    """Convert ``model`` unless that has been done before. Raises UserError when OpenVINO cannot read it.

    The result appears in one rename, so that a kill in the middle leaves nothing half-made to be found.
    """
    if model.kind == "ir":
        return PreparedModel(model.path, _facts_of_ir(model.path))
    folder = cache_folder() / "openvino" / f"{model.path.stem}-{weights}-{_key(model.path, weights)}"
    if not (folder / _FACTS).is_file():
        make_private(folder.parent)
        with tempfile.TemporaryDirectory(prefix="converting-", dir=folder.parent) as temporary:
            made = Path(temporary) / "model"
            made.mkdir(mode=0o700)
            _convert(model.path, made, weights)
            try:
                made.rename(folder)
            except OSError:
                # Another process was faster; what it made is the same.
                if not (folder / _FACTS).is_file():
                    raise
    return PreparedModel(folder, msgspec.json.decode((folder / _FACTS).read_bytes(), type=PreparedFacts))


def converted(file: Path) -> list[Path]:
    """The folders that ``prepare`` made of a GGUF file, with the OpenVINO that is installed now."""
    try:
        names = [f"{file.stem}-{weights}-{_key(file, weights)}" for weights in ("f16", "q8_0")]
    except UserError:
        return []  # Without OpenVINO there is nothing that this installation could have made.
    return [folder for name in names if (folder := cache_folder() / "openvino" / name).is_dir()]


def _key(file: Path, weights: str) -> str:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(f"{_CONVERTER} {weights} {require('openvino').__version__}".encode())
    return digest.hexdigest()[:16]


def _convert(file: Path, folder: Path, weights: Literal["f16", "q8_0"]) -> None:
    if metadata(file).get("general.architecture") == ARCHITECTURE:
        facts = _convert_gemma3(file, folder, weights)
    else:
        _convert_by_genai(file, folder, weights)
        facts = _facts_of_gguf(file)
    (folder / _FACTS).write_bytes(msgspec.json.encode(facts))


def _convert_gemma3(file: Path, folder: Path, weights: Literal["f16", "q8_0"]) -> PreparedFacts:
    if weights != "f16":
        raise UserError(f"The weights of '{file}' can be stored as f16 only: leave out -O weights={weights}.")
    shape = read_shape(metadata(file))
    tensors = {tensor.name: tensor for tensor in _reader(file).tensors}
    dequantize = require("gguf").quants.dequantize
    model = build_graph(shape, lambda name: dequantize(tensors[name].data, tensors[name].tensor_type))
    require("openvino").save_model(model, folder / "openvino_model.xml", compress_to_fp16=False)
    return msgspec.structs.replace(_facts_of_gguf(file), windows=list(shape.windows))


def _convert_by_genai(file: Path, folder: Path, weights: Literal["f16", "q8_0"]) -> None:
    readable = folder / "model.gguf"
    if needs_reencoding(file, weights):
        reencode(file, readable, weights)
    else:
        _link(file, readable)
    genai = require("openvino_genai")
    try:
        # Loading a GGUF with this switch writes the IR, tokenizer and detokenizer next to it.
        genai.LLMPipeline(str(readable), "CPU", enable_save_ov_model=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"OpenVINO cannot read the model '{file}': {reason}") from error
    readable.unlink()
    mend_frequencies(file, folder / MODEL_FILE, _reader(file))


def _facts_of_gguf(file: Path) -> PreparedFacts:
    values = metadata(file)
    architecture = values.get("general.architecture")
    ids = [values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    return PreparedFacts(
        context_length=int(values[f"{architecture}.context_length"]),
        eos_token_ids=sorted({int(i) for i in ids if i is not None}),
    )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _facts_of_ir(folder: Path) -> PreparedFacts:
    if (folder / _FACTS).is_file():
        return msgspec.json.decode((folder / _FACTS).read_bytes(), type=PreparedFacts)
    config = _json(folder / "config.json")
    generation = _json(folder / "generation_config.json")
    length = config.get("max_position_embeddings")
    if not isinstance(length, int):
        # OpenVINO GenAI saves the IR of a GGUF next to it, without a config.json.
        sources = list(folder.glob("*.gguf"))
        if len(sources) == 1:
            return _facts_of_gguf(sources[0])
        raise UserError(
            f"The IR folder '{folder}' does not say how long its context is: give it a config.json with "
            "max_position_embeddings, or put the GGUF file it was made from into it."
        )
    found = generation.get("eos_token_id", config.get("eos_token_id"))
    ids = found if isinstance(found, list) else [found]
    cap = config.get("attn_logit_softcapping")
    return PreparedFacts(
        length,
        sorted(i for i in ids if isinstance(i, int)),
        first_context=_first_context(config),
        score_cap=float(cap) if isinstance(cap, int | float) else 0.0,
    )


def _first_context(config: dict[str, Any]) -> int | None:
    """By transformers' names: ``rope_parameters`` since its release 5, ``rope_scaling`` before."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(scaling, dict) or "long_factor" not in scaling:
        return None
    name = "original_max_position_embeddings"
    found = scaling.get(name, config.get(name))
    return found if isinstance(found, int) else None


def _json(file: Path) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def needs_reencoding(gguf_file: Path, weights: Literal["f16", "q8_0"]) -> bool:
    """Whether OpenVINO's reader gets some of the weights wrong, or refuses them."""
    accepted = _READ_EXACTLY if weights == "f16" else _READ_EXACTLY | {"Q8_0"}
    types = {tensor.tensor_type.name for tensor in _reader(gguf_file).tensors}
    if weights == "q8_0":
        return "Q8_0" not in types or not types <= accepted
    return not types <= accepted


def reencode(source: Path, target: Path, weights: Literal["f32", "f16", "q8_0"]) -> None:
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
    file_types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_file_type(gguf.LlamaFileType[file_types[weights]])
    for tensor in reader.tensors:
        if tensor.tensor_type == kinds.F32 and len(tensor.shape) < 2:
            writer.add_tensor(tensor.name, tensor.data.copy())
            continue
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if weights != "q8_0":
            writer.add_tensor(tensor.name, values.astype("float32" if weights == "f32" else "float16"))
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
