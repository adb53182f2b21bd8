"""Make one of the tiny models with transformers, and convert it with optimum-intel as one would convert a real one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from architectures import Architecture, configuration
from optimum.exporters.openvino import main_export
from optimum.intel import OVConfig


def tokenizer_of(architecture: Architecture) -> Any:
    vocabulary = architecture.vocabulary
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=vocabulary.make(),
        bos_token=vocabulary.bos,
        eos_token=vocabulary.eos,
        chat_template=vocabulary.template,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def model_of(architecture: Architecture, tokenizer: Any, change: Mapping[str, Any]) -> Any:
    """With the same weights whatever ``change`` of its configuration there is."""
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(11)
    model = transformers.AutoModelForCausalLM.from_config(
        configuration(architecture, ids, change), dtype=torch.float32, attn_implementation="eager"
    )
    model.eval()
    return model


def convert(architecture: Architecture, source: Path, target: Path) -> Any:
    """Save the model as transformers does to ``source`` and as an IR to ``target``. Returns its tokenizer."""
    tokenizer = tokenizer_of(architecture)
    model = model_of(architecture, tokenizer, {})
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(architecture.vocabulary.end)]
    model.generation_config.eos_token_id = sorted(set(ends))
    model.save_pretrained(source)
    tokenizer.save_pretrained(source)
    task, precision = "text-generation-with-past", OVConfig(dtype="fp32")
    main_export(str(source), target, task=task, ov_config=precision, convert_tokenizer=True)
    return tokenizer
