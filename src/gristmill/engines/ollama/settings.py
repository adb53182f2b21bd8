"""What the user chose for the ollama engine: its options and the server's address."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from gristmill.engines.options import parse_options
from gristmill.user_error import UserError

DEFAULT_URL = "http://127.0.0.1:11434"
_DEFAULT_PORT = 11434

_Count = Annotated[int, msgspec.Meta(ge=1)]


class OllamaOptions(msgspec.Struct, frozen=True):
    """Of the runner options (the first four) exactly one set is sent for the whole run: any change reloads."""

    #: Tokens of context for one request, prompt and answer together; 0 leaves it to ``facts.choose_num_ctx``.
    num_ctx: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: Tokens computed in one step of prefill; 0 leaves it to Ollama.
    num_batch: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: Layers on the GPU; -1 leaves it to Ollama.
    num_gpu: Annotated[int, msgspec.Meta(ge=-1)] = -1
    #: CPU threads; 0 leaves it to Ollama.
    num_thread: Annotated[int, msgspec.Meta(ge=0)] = 0
    #: Requests in flight: the server's OLLAMA_NUM_PARALLEL, which no endpoint tells.
    parallel: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    #: Answer tokens where a request sets no limit. Ollama itself would go on for ten contexts.
    num_predict: _Count = 1024
    #: Let a thinking model think before it answers; it costs answer tokens.
    think: bool = False
    #: Seconds that loading the model may take at the start, waiting for room in memory included. Giving up aborts the
    #: load.
    load_timeout: Annotated[float, msgspec.Meta(gt=0)] = 1800.0
    #: Compute a long-candidate group's common start by itself first, on models with a sliding window.
    prefix_warmup: bool = True

    @staticmethod
    def parse(options: dict[str, str]) -> OllamaOptions:
        return parse_options(OllamaOptions, options, "ollama")


def base_url(url: str | None) -> str:
    """The server's root, without a slash at the end.

    Takes what OLLAMA_HOST takes (``gpu-box``, ``gpu-box:11434``), and an address that ends in /v1 or /api. Raises
    UserError for what is not an address.
    """
    given = (url or DEFAULT_URL).strip()
    bare = "://" not in given
    try:
        parts = urlsplit(f"http://{given}" if bare else given)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"'{given}' is not the address of an Ollama server: write it like {DEFAULT_URL}.")
    host = parts.netloc if port or not bare else f"{parts.netloc}:{_DEFAULT_PORT}"
    path = parts.path.rstrip("/")
    for ending in ("/v1", "/api"):
        path = path.removesuffix(ending)
    return f"{parts.scheme}://{host}{path}"
