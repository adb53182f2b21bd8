"""Loading a model for OpenVINO: one that writes, or one that embeds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from gristmill.engines.embedded.embeddings.embedding_runner import Cuts, InputEncoder, LoadedEmbedder, Pooling
from gristmill.engines.embedded.embeddings.gguf_pooling import gguf_pooling
from gristmill.engines.embedded.model_runner import LoadedModel
from gristmill.engines.embedded.openvino.attention_kernel import KernelMissingError
from gristmill.engines.embedded.openvino.encoder_model import EncoderModel, cut_before_head, pools_itself
from gristmill.engines.embedded.openvino.engine import OpenVinoOptions
from gristmill.engines.embedded.openvino.paged_model import PagedModel, Precision, check_version, lm_head
from gristmill.engines.embedded.openvino.precision import Setting, choose_precision
from gristmill.engines.embedded.openvino.prepare import PreparedFacts, prepare
from gristmill.engines.embedded.openvino.rotary_factors import settle_factors
from gristmill.engines.embedded.openvino.sentence_pipeline import read_pipeline
from gristmill.engines.embedded.openvino.vocabulary import open_vocabulary
from gristmill.engines.embedded.tokenizer import TokenizerFile
from gristmill.engines.protocol import Computing
from gristmill.extras import require
from gristmill.models.gguf_header import read_header
from gristmill.models.ir_folder import MODEL_FILE, TOKENIZER_FILE, exported_to_embed
from gristmill.models.locate import LocalModel, locate
from gristmill.user_error import UserError


def load_model(source: str, options: dict[str, Any]) -> LoadedModel | LoadedEmbedder:
    """The ``LoadModel`` of this engine."""
    for package in ("gguf", "openvino", "openvino_genai", "openvino_tokenizers"):
        require(package)
    chosen = msgspec.convert(options, OpenVinoOptions)
    model = locate(source)
    if model.kind == "ir" and exported_to_embed(model.path):
        return _load_encoder(model.path, chosen)
    pooling = _pooling_of_writer(model, chosen)
    folder, facts = prepare(model, chosen.weights)
    if pooling is not None:
        return _load_cut_writer(model, folder, facts, pooling, chosen)
    vocabulary = open_vocabulary(model, folder)

    def load(precision: Precision) -> PagedModel:
        return PagedModel(
            folder,
            int(chosen.kv_cache_gb * 2**30),
            chosen.threads,
            chosen.attention,
            facts.windows,
            long_context=chosen.long_context,
            score_cap=facts.score_cap,
            precision=precision,
        )

    setting = Setting(folder, f"{chosen.threads} {chosen.attention} {chosen.long_context}", load)
    precision, because = choose_precision(chosen.precision, setting, vocabulary)
    try:
        paged = load(precision)
    except KernelMissingError as error:
        if chosen.precision != "auto":
            raise UserError(f"The model cannot be computed with precision={precision}: {error}.") from None
        # It could be, when that was measured: a compiler may have gone since.
        precision, because = "f32", f"{precision} cannot be used: {error}"
        paged = load(precision)
    on = f"the CPU, in {precision}" + (f" ({because})" if because else "")
    threads = chosen.threads or len(os.sched_getaffinity(0))
    computing = Computing(on, precision=precision, build=paged.kv_format, threads=threads)
    ends = frozenset(facts.eos_token_ids) | vocabulary.ends
    context, notices = _context(facts, chosen)
    return LoadedModel(paged, vocabulary, ends, context, paged.notices + notices, model.defaults, computing)


def _context(facts: PreparedFacts, options: OpenVinoOptions) -> tuple[int, list[str]]:
    """The context length in tokens, and what is to be said of it."""
    if facts.first_context is None or facts.first_context >= facts.context_length or options.long_context:
        return facts.context_length, []
    notice = (
        f"The context is {facts.first_context:,} tokens, with the rotary factors that the model has for so many. "
        f"-O long_context=true gives all {facts.context_length:,}, and computes short prompts with the factors for "
        "long ones, too."
    )
    return facts.first_context, [notice]


def _load_encoder(folder: Path, options: OpenVinoOptions) -> LoadedEmbedder:
    ov = require("openvino")
    check_version(ov.__version__)
    core = ov.Core()
    model = core.read_model(folder / MODEL_FILE)
    pipeline = read_pipeline(folder)
    pooling = pipeline.pooling if options.pooling == "model" else options.pooling
    if options.pooling == "model" and pools_itself(model):
        pooling = None
    elif pooling is None:
        raise UserError(
            f"The files of the model in '{folder}' do not say how it pools (1_Pooling/config.json): copy them from the "
            "model's repository, or say how with -O pooling=mean, cls or last; its card knows."
        )
    encoder: InputEncoder = TokenizerFile(folder / TOKENIZER_FILE)
    cuts = Cuts(any_size=True) if options.matryoshka else pipeline.cuts
    runner = EncoderModel(core, model, pooling, options.threads)
    return LoadedEmbedder(runner, encoder, pipeline.context_length, cuts, pipeline.normalised, [])


def _pooling_of_writer(model: LocalModel, options: OpenVinoOptions) -> Pooling | None:
    """How a model with an LM head is to embed; None: it writes. A GGUF of one that was trained to embed says how."""
    if options.pooling != "model":
        return options.pooling
    if model.kind == "ir":
        return None
    return gguf_pooling(read_header(model.path).metadata).pooling


def _load_cut_writer(
    source: LocalModel, folder: Path, facts: PreparedFacts, pooling: Pooling, options: OpenVinoOptions
) -> LoadedEmbedder:
    ov = require("openvino")
    check_version(ov.__version__)
    core = ov.Core()
    model = core.read_model(folder / MODEL_FILE)
    settle_factors(model, options.long_context)
    cut_before_head(ov, model, lm_head(model))
    runner = EncoderModel(core, model, pooling, options.threads)
    context, notices = _context(facts, options)
    notices += [f"The model embeds, and does not write: a vector is {_MEANING[pooling]} (pooling={pooling})."]
    encoder = open_vocabulary(source, folder)
    return LoadedEmbedder(runner, encoder, context, Cuts(any_size=options.matryoshka), True, notices)


_MEANING: dict[Pooling, str] = {
    "mean": "the mean of its tokens' hidden states",
    "cls": "the hidden state of its first token",
    "last": "the hidden state of its last token",
}
