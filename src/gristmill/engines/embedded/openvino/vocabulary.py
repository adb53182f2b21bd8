"""The tokenizer of a model folder: text to token ids, and each token id to its bytes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engines.embedded.llama_cpp.vocabulary import LlamaVocabulary
from gristmill.engines.embedded.llama_cpp.vocabulary import open_vocabulary as llama_vocabulary
from gristmill.extras import require
from gristmill.models.locate import LocalModel
from gristmill.user_error import UserError

TOKENIZER_GRAPH = "openvino_tokenizer.xml"
_NO_MAXIMUM = 2**31 - 1


class TokenizerGraph:
    """A model folder's tokenizer, run as the OpenVINO graph that it is: texts to token ids. Safe to use from several
    threads at a time, each of which gets buffers of its own.

    OpenVINO GenAI's own face to it holds Python's global lock for as long as a text takes (a second a megabyte), and
    cuts texts off without a word where the graph has a maximum length. Here the lock is free while the graph runs, and
    the maximum is taken out of it.
    """

    def __init__(self, folder: Path) -> None:
        """Raises UserError for a graph that this does not know how to feed."""
        ov = require("openvino")
        core = ov.Core()
        core.add_extension(str(require("openvino_tokenizers")._ext_path))
        self._compiled = [_compile(ov, core, folder, special_tokens) for special_tokens in (False, True)]
        self._local = threading.local()

    def encode(self, text: bytes, special_tokens: bool) -> list[int]:
        """``text`` is UTF-8. ``special_tokens``: add what the model wants around a text."""
        requests = getattr(self._local, "requests", None)
        if requests is None:
            requests = self._local.requests = [compiled.create_infer_request() for compiled in self._compiled]
        begins, ends = np.zeros(1, np.int32), np.array([len(text)], np.int32)
        request = requests[special_tokens]
        request.infer([begins, ends, np.frombuffer(text, np.uint8)], share_inputs=True)
        tokens: list[int] = request.get_output_tensor(0).data.reshape(-1).tolist()
        return tokens


def _compile(ov: Any, core: Any, folder: Path, special_tokens: bool) -> Any:
    model = core.read_model(folder / TOKENIZER_GRAPH)
    _take_bytes(ov, model)
    _leave_only_ids(model)
    for node in model.get_ordered_ops():
        if node.get_type_name() in ("Minimum", "Truncate"):
            _lift_maximum(ov, node)
        elif node.get_type_name() == "CombineSegments" and not special_tokens:
            _drop_special_tokens(ov, node)
    model.validate_nodes_and_infer_types()
    return core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": "1", "PERFORMANCE_HINT": "LATENCY"})


def _take_bytes(ov: Any, model: Any) -> None:
    """Feed the bytes of the text behind the node that unpacks strings: Python's string tensors lose NULs at an end."""
    unpacking = [node for node in model.get_ordered_ops() if node.get_type_name() == "StringTensorUnpack"]
    parameters = model.get_parameters()
    if len(unpacking) != 1 or len(parameters) != 1:
        raise UserError(
            "The model's tokenizer graph is of a kind that the embedded engine does not know (such as SentencePiece's "
            "own, in older folders): convert it again with a newer openvino-tokenizers."
        )
    types = (ov.Type.i32, ov.Type.i32, ov.Type.u8)
    fed = [ov.opset13.parameter([-1], each) for each in types]
    for output, parameter in zip(unpacking[0].outputs(), fed, strict=True):
        for target in output.get_target_inputs():
            target.replace_source_output(parameter.output(0))
    model.add_parameters(fed)
    for parameter in parameters:
        model.remove_parameter(parameter)


def _leave_only_ids(model: Any) -> None:
    for result in list(model.get_results()):
        if "input_ids" not in result.input_value(0).get_names():
            model.remove_result(result)


def _lift_maximum(ov: Any, node: Any) -> None:
    """Where a sequence's length meets a constant, put the largest one there is."""
    for place in node.inputs():
        source = place.get_source_output().get_node()
        if source.get_type_name() == "Constant" and source.get_element_type() in (ov.Type.i32, ov.Type.i64):
            lifted = np.full_like(source.data, _NO_MAXIMUM)
            place.replace_source_output(ov.opset13.constant(lifted).output(0))


def _drop_special_tokens(ov: Any, node: Any) -> None:
    """Segments (begins, ends, ids) that are constants are the special tokens: let them end where they begin. As GenAI
    does it, ``make_tokenizer_stateful.cpp``."""
    for index in range(1, len(node.inputs()) - 1, 3):
        source = node.input_value(index).get_node()
        if source.get_type_name() == "Constant":
            begins = node.input_value(index - 1).get_node()
            node.input(index).replace_source_output(ov.opset13.constant(np.array(begins.data)).output(0))


class ModelVocabulary:
    """``token_bytes[i]`` is what token ``i`` adds to the text; empty for special tokens. A token may hold part of
    a character, so bytes are joined before they are decoded. ``longest_token`` is the length in bytes of the longest
    one, special or not. ``ends`` are the tokens that end an answer, as far as the tokenizer knows."""

    def __init__(self, folder: Path) -> None:
        facts = require("openvino_genai").Tokenizer(str(folder))
        self._graph = TokenizerGraph(folder)
        pieces, special = _read_tokens(folder)
        self._pieces = pieces
        self.special = special
        self.token_bytes = [b"" if index in special else piece for index, piece in enumerate(pieces)]
        self.longest_token = max(map(len, pieces))
        self.chat_template: str = facts.get_original_chat_template()
        self.bos_token: str = facts.get_bos_token()
        self.eos_token: str = facts.get_eos_token()
        self.ends = frozenset({facts.get_eos_token_id()})

    @property
    def size(self) -> int:
        return len(self.token_bytes)

    @property
    def special_texts(self) -> list[str]:
        """Texts that are always tokens of their own."""
        return [self._pieces[token].decode("utf-8", "replace") for token in sorted(self.special)]

    def special_text(self, token: int) -> bytes:
        """How the vocabulary spells a token, special or not ("<|im_end|>")."""
        return self._pieces[token]

    def encode(self, text: str, special_tokens: bool) -> list[int]:
        """All of the text's tokens, however many. ``special_tokens``: add what the model wants around a text (a chat
        template has it already). Safe from several threads. Raises UnicodeEncodeError for a lone surrogate."""
        return self._graph.encode(text.encode(), special_tokens)


def open_vocabulary(model: LocalModel, folder: Path) -> ModelVocabulary | LlamaVocabulary:
    """The tokenizer of ``model``, of which ``folder`` was prepared. A GGUF that OpenVINO's reader refuses leaves none
    there: llama.cpp reads it from the file. Raises UserError."""
    if model.kind == "ir" or (folder / TOKENIZER_GRAPH).is_file():
        return ModelVocabulary(folder)
    return llama_vocabulary(model.path)


def _read_tokens(folder: Path) -> tuple[list[bytes], frozenset[int]]:
    """From the detokenizer's own table; its Python face gives text only, not the bytes of a split character."""
    ov = require("openvino")
    core = ov.Core()
    core.add_extension(str(require("openvino_tokenizers")._ext_path))
    model = core.read_model(folder / "openvino_detokenizer.xml")
    decoder = next(node for node in model.get_ordered_ops() if node.get_type_name() == "VocabDecoder")
    sources = [decoder.input_value(index).get_node() for index in range(len(decoder.inputs()))]
    begins, ends, chars = (np.array(node.data) for node in sources[1:4])
    skipped = [int(i) for i in _constants_above(sources[4])] if len(sources) > 4 else []
    blob = chars.tobytes()
    pieces = [blob[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
    # SentencePiece spells a space as U+2581 and a raw byte as <0x0A>; byte-level vocabularies hold bytes as they are.
    if any(piece.startswith("▁".encode()) for piece in pieces):
        pieces = [_from_sentencepiece(piece) for piece in pieces]
    return pieces, frozenset(skipped)


def _constants_above(node: Any) -> list[int]:
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    values: list[int] = np.array(node.data).reshape(-1).tolist()
    return values


def _from_sentencepiece(piece: bytes) -> bytes:
    if len(piece) == 6 and piece.startswith(b"<0x") and piece.endswith(b">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁".encode(), b" ")
