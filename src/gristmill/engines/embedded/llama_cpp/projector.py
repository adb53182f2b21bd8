"""Seeing: image files to vectors in the places of tokens, by llama.cpp's libmtmd and a projector."""

from __future__ import annotations

import ctypes
import hashlib
import os
import secrets
import threading
import weakref
from collections import OrderedDict
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int32, c_size_t, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.llama_cpp.library import LlamaLibrary
from gristmill.engines.embedded.pictures.image_file import invalid_image, read_image
from gristmill.engines.embedded.pictures.picture import MOST_VECTORS, Picture, PicturePart
from gristmill.engines.errors import interrupted
from gristmill.user_error import UserError

_TEXT, _IMAGE = 0, 1
#: Bytes of vectors that are kept of pictures seen, so that one that all rows share is looked at once.
_KEPT_BYTES = 256 * 2**20
_ADVICE = "Leave -O library out to use the installed package's."


class ContextParams(ctypes.Structure):
    """``mtmd_context_params`` (``tools/mtmd/mtmd.h``), with room for what later releases add."""

    _fields_ = [
        ("use_gpu", c_bool),
        ("device", c_void_p),
        ("print_timings", c_bool),
        ("n_threads", c_int),
        ("image_marker", c_char_p),
        ("media_marker", c_char_p),
        ("flash_attn_type", c_int),
        ("warmup", c_bool),
        ("image_min_tokens", c_int),
        ("image_max_tokens", c_int),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("batch_max_tokens", c_int32),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("padding", ctypes.c_char * 256),
    ]


class InputText(ctypes.Structure):
    _fields_ = [("text", c_char_p), ("text_len", c_size_t), ("add_special", c_bool), ("parse_special", c_bool)]


#: Result and arguments of every function that we call.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "mtmd_context_params_default": (ContextParams,),
    "mtmd_init_from_file": (c_void_p, c_char_p, c_void_p, ContextParams),
    "mtmd_free": (None, c_void_p),
    "mtmd_log_set": (None, c_void_p, c_void_p),
    "mtmd_support_vision": (c_bool, c_void_p),
    "mtmd_decode_use_non_causal": (c_bool, c_void_p, c_void_p),
    "mtmd_decode_use_mrope": (c_bool, c_void_p),
    "mtmd_bitmap_init": (c_void_p, c_uint32, c_uint32, c_void_p),
    "mtmd_bitmap_free": (None, c_void_p),
    "mtmd_input_chunks_init": (c_void_p,),
    "mtmd_input_chunks_size": (c_size_t, c_void_p),
    "mtmd_input_chunks_get": (c_void_p, c_void_p, c_size_t),
    "mtmd_input_chunks_free": (None, c_void_p),
    "mtmd_input_chunk_get_type": (c_int, c_void_p),
    "mtmd_input_chunk_get_n_tokens": (c_size_t, c_void_p),
    "mtmd_input_chunk_get_tokens_text": (POINTER(c_int32), c_void_p, POINTER(c_size_t)),
    "mtmd_tokenize": (c_int32, c_void_p, c_void_p, POINTER(InputText), POINTER(c_void_p), c_size_t),
    "mtmd_encode_chunk": (c_int32, c_void_p, c_void_p),
    "mtmd_get_output_embd": (POINTER(c_float), c_void_p),
}


class Multimodal:
    """libmtmd: its functions are attributes under their own names."""

    def __init__(self, library: LlamaLibrary) -> None:
        """Raises UserError where there is none beside ``library``, or one of another layout."""
        handle = library.symbols("mtmd_init_from_file", "libmtmd")
        missing = (
            "mtmd_init_from_file" if handle is None else next((n for n in _FUNCTIONS if not hasattr(handle, n)), "")
        )
        if missing:
            raise UserError(
                f"{library} cannot see: it has no {missing} (libmtmd). Use the installed package's library."
            )
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(handle, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        params = self.mtmd_context_params_default()
        known = (params.use_gpu, params.n_threads, params.flash_attn_type, params.warmup, params.image_max_tokens)
        if known != (True, 4, -1, True, -1) or params.batch_max_tokens != 1024:
            raise UserError(f"{library} cannot be used to see: its libmtmd is of another release. {_ADVICE}")
        self.mtmd_log_set(ctypes.cast(library.log.callback, c_void_p), None)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class Projector:
    """``Eyes`` of a loaded model. ``non_causal``: vectors of a picture part see each other, so that they are computed
    together, without the causal mask."""

    def __init__(
        self, library: LlamaLibrary, model: Any, file: Path, width: int, threads: int, use_gpu: bool, most_vectors: int
    ) -> None:
        """``width`` of the hidden state; ``most_vectors`` that can be computed together. Raises UserError for a file
        that is no projector, or not this model's."""
        self._multimodal = multimodal = Multimodal(library)
        self._marker = f"<{secrets.token_hex(8)}>".encode()
        self._width = width
        params = multimodal.mtmd_context_params_default()
        params.use_gpu, params.n_threads, params.print_timings = use_gpu, threads, False
        params.media_marker = self._marker
        library.log.forget()
        self._context = multimodal.mtmd_init_from_file(os.fsencode(file), model, params)
        if not self._context:
            reason = library.log.reason() or "it does not say why"
            raise UserError(f"The projector '{file}' cannot be used with the model: {reason}.")
        if not multimodal.mtmd_support_vision(self._context):
            raise UserError(f"The projector '{file}' does not read images: leave it out.")
        if multimodal.mtmd_decode_use_mrope(self._context):
            raise UserError(
                f"The model of the projector '{file}' places images in two dimensions (M-RoPE, as Qwen-VL does), which "
                "the llama_cpp engine cannot yet: use Ollama or llama.cpp's server for it."
            )
        self.non_causal: bool = multimodal.mtmd_decode_use_non_causal(self._context, None)
        self._most_vectors = min(most_vectors, MOST_VECTORS) if self.non_causal else MOST_VECTORS
        self._looking = threading.Lock()
        self._keeping = threading.Lock()
        #: By digest, and never two of the same picture: its tokens lead to one.
        self._there: weakref.WeakValueDictionary[str, Picture] = weakref.WeakValueDictionary()
        self._kept: OrderedDict[str, Picture] = OrderedDict()

    def look(self, data: bytes) -> Picture:
        """As in Eyes. One picture at a time is looked at, on as many threads as the model computes on."""
        digest = hashlib.sha256(data).hexdigest()
        picture = self._there.get(digest)
        if picture is None:
            pixels = read_image(data)
            with self._looking:
                picture = self._there.get(digest)
                if picture is None:
                    picture = self._there[digest] = self._see(digest, pixels)
        self._keep(picture)
        return picture

    def _keep(self, picture: Picture) -> None:
        with self._keeping:
            self._kept[picture.digest] = picture
            self._kept.move_to_end(picture.digest)
            size = sum(each.size for each in self._kept.values())
            while size > _KEPT_BYTES and len(self._kept) > 1:
                size -= self._kept.popitem(last=False)[1].size

    def _see(self, digest: str, pixels: NDArray[np.uint8]) -> Picture:
        library = self._multimodal
        chunks = library.mtmd_input_chunks_init()
        bitmap = library.mtmd_bitmap_init(pixels.shape[1], pixels.shape[0], pixels.ctypes.data)
        try:
            text = InputText(self._marker, len(self._marker), False, True)
            if library.mtmd_tokenize(self._context, chunks, ctypes.byref(text), (c_void_p * 1)(bitmap), 1):
                raise invalid_image("the model's projector cannot make anything of it")
            tokens: list[int] = []
            parts: list[PicturePart] = []
            for index in range(library.mtmd_input_chunks_size(chunks)):
                chunk = library.mtmd_input_chunks_get(chunks, index)
                if library.mtmd_input_chunk_get_type(chunk) == _TEXT:
                    tokens += self._text_of(chunk)
                else:
                    parts.append(PicturePart(bytes.fromhex(digest), len(parts), self._vectors_of(chunk)))
                    tokens += parts[-1].tokens
            return Picture(digest, tokens, parts)
        finally:
            library.mtmd_bitmap_free(bitmap)
            library.mtmd_input_chunks_free(chunks)

    def _text_of(self, chunk: Any) -> list[int]:
        count = c_size_t()
        found = self._multimodal.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
        tokens: list[int] = found[: count.value]
        return tokens

    def _vectors_of(self, chunk: Any) -> NDArray[np.float32]:
        library = self._multimodal
        count: int = library.mtmd_input_chunk_get_n_tokens(chunk)
        if count > self._most_vectors:
            raise invalid_image(f"it takes {count:,} tokens at once, and {self._most_vectors:,} are possible")
        if library.mtmd_encode_chunk(self._context, chunk):
            raise interrupted("llama.cpp could not look at an image.")
        vectors = np.ctypeslib.as_array(library.mtmd_get_output_embd(self._context), (count, self._width)).copy()
        if not np.isfinite(vectors).all():
            raise invalid_image("what the model sees in it are no numbers")
        return vectors
