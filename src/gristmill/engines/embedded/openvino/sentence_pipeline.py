"""How an embedding model's folder says that its vectors are made: the files of sentence-transformers and of vLLM.

``modules.json`` lists what comes after the model (pooling, perhaps normalising), ``1_Pooling/config.json`` the kind of
pooling, ``sentence_bert_config.json`` the longest input; ``config.json`` has what a model may be cut to (the names are
vLLM's, https://docs.vllm.ai/en/latest/models/pooling_models.html).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gristmill.engines.embedded.embeddings.embedding_runner import Cuts, Pooling
from gristmill.models.ir_folder import POOLING_FILE
from gristmill.user_error import UserError

#: Names of sentence-transformers for a kind of pooling: the field of its older releases, and the newer value.
_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "cls": "cls",
    "mean": "mean",
    "lasttoken": "last",
}
#: Models whose positions begin behind the padding's: https://github.com/huggingface/text-embeddings-inference
#: (router/src/lib.rs, position_offset).
_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert"})


class SentencePipeline(NamedTuple):
    """``pooling`` is None where the folder says nothing about it. ``context_length`` in tokens."""

    pooling: Pooling | None
    normalised: bool
    context_length: int
    vocabulary: int
    cuts: Cuts


def read_pipeline(folder: Path) -> SentencePipeline:
    """Raises UserError for a pipeline with a step that is not known here, or a file that cannot be read."""
    config = _json(folder / "config.json")
    vocabulary, positions = config.get("vocab_size"), config.get("max_position_embeddings")
    if not isinstance(vocabulary, int) or not isinstance(positions, int):
        raise UserError(
            f"The IR folder '{folder}' does not say how long an input may be and how many tokens there are: give it "
            "the model's config.json, with max_position_embeddings and vocab_size."
        )
    if config.get("model_type") in _OFFSET_POSITIONS:
        positions -= int(config.get("pad_token_id") or 0) + 1
    longest = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    pooling, normalised = _steps(folder)
    sizes = config.get("matryoshka_dimensions")
    return SentencePipeline(
        pooling,
        normalised,
        min(positions, longest) if isinstance(longest, int) else positions,
        vocabulary,
        Cuts(
            tuple(each for each in sizes if isinstance(each, int)) if isinstance(sizes, list) else (),
            any_size=config.get("is_matryoshka") is True and not sizes,
        ),
    )


def _steps(folder: Path) -> tuple[Pooling | None, bool]:
    """Of the pipeline after the model: how it pools, and whether it brings vectors to length 1."""
    modules = _json(folder / "modules.json", list)
    if not modules:
        # As OpenAI's vectors are, and those of every server that is told nothing else.
        return _pooling(folder / POOLING_FILE), True
    kinds = [str(each.get("type", "")).rpartition(".")[2] for each in modules if isinstance(each, dict)]
    if unknown := [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]:
        raise UserError(
            f"The pipeline of the model in '{folder}' has a step that this engine does not know ({unknown[0]}): export "
            "it whole, so that the IR has the output 'sentence_embedding'."
        )
    paths = [str(each.get("path", "")) for each in modules if str(each.get("type", "")).endswith(".Pooling")]
    inside = [path for path in paths if not Path(path).is_absolute() and ".." not in Path(path).parts]
    pooling = _pooling(folder / inside[0] / "config.json") if inside else None
    return pooling, "Normalize" in kinds


def _pooling(file: Path) -> Pooling | None:
    if not file.is_file():
        return None
    config = _json(file)
    mode = config.get("pooling_mode")
    named = [mode] if isinstance(mode, str) else mode if isinstance(mode, list) else []
    named += [name for name, chosen in config.items() if name.startswith("pooling_mode_") and chosen is True]
    if len(named) != 1 or named[0] not in _POOLINGS:
        raise UserError(
            f"The model pools by {' and '.join(map(str, named)) or 'nothing'} ('{file}'), which this engine does not "
            "know: choose another model, or how to pool with -O pooling=mean, cls or last."
        )
    return _POOLINGS[named[0]]


def _json(file: Path, kind: Any = dict) -> Any:
    """Empty where there is no such file."""
    try:
        content = msgspec.json.decode(file.read_bytes())
    except FileNotFoundError:
        return kind()
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"The file {file} cannot be read: {error}.") from None
    return content if isinstance(content, kind) else kind()
