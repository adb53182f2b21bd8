"""In which numbers the linear layers of a model are computed: as asked, or as a short measurement at its first start
says."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.model_runner import Span
from gristmill.engines.embedded.openvino.attention_kernel import KernelMissingError
from gristmill.engines.embedded.openvino.paged_model import PagedModel, Precision
from gristmill.engines.embedded.openvino.split_linear import LINEAR, amx_is_here
from gristmill.engines.embedded.processor import processor_digest
from gristmill.engines.embedded.tokenizer import TextEncoder
from gristmill.extras import require
from gristmill.models.cache import cache_folder
from gristmill.models.checked_file import sha256_of, write_checked
from gristmill.models.ir_folder import MODEL_FILE
from gristmill.user_error import UserError

#: Of log-probabilities, between f32 and what may be taken instead of it: less than storing weights as f16 changes.
MOST_DIFFERENCE = 0.01
#: How many times as fast as f32 a prefill must be; and how much slower a step of one token a row may be.
LEAST_GAIN, MOST_SLOWDOWN = 1.15, 1.05

#: Part of the key of what is kept: raise it when something else is measured, or decided otherwise.
_PROBE = 1
_PROBE_TEXT = (
    "The mill stands by the river, and has done so since 1743. Each morning at 6:30 the miller opens the sluice, "
    "listens to the wheel, and writes down how much grain there is: 12 sacks of wheat, 7 of rye, 3.5 of oats.\n\n"
    'def grind(sacks, stones=2):\n    return [sack * 0.97 for sack in sacks if sack > 0]\n\n{"miller": "Ada", '
    '"score": 8, "reason": "fine flour"}\n\nDie Mühle mahlt langsam, aber fein. Le moulin tourne quand l\'eau est '
    "haute. 水车在转。\n\nQuestion: How much flour do 12 sacks of wheat give? Answer:"
)
#: Rows of a step of one token each, and how often each step is computed: until so many seconds are over.
_ROWS, _TURNS, _MOST_SECONDS = 32, 5, 2.0
#: As in the accuracy tests: what is less probable decides nothing.
_MOST_PROBABLE = 20


class Measured(msgspec.Struct, frozen=True):
    """Of a precision beside f32: how many times as fast a prefill and a step of one token a row are, and the largest
    difference of a log-probability among the most probable tokens."""

    prefill: float
    decode: float
    difference: float

    @property
    def good_enough(self) -> bool:
        gains = self.prefill >= LEAST_GAIN and self.decode * MOST_SLOWDOWN >= 1
        return gains and self.difference <= MOST_DIFFERENCE


class Chosen(NamedTuple):
    """``because``: in words, as the end of a sentence; empty where it was asked for, or there is nothing to choose."""

    precision: Precision
    because: str = ""


class Setting(NamedTuple):
    """The model in ``folder``, as ``load`` loads it. ``options``: those that change how fast it computes."""

    folder: Path
    options: str
    load: Callable[[Precision], PagedModel]


def choose_precision(wanted: Precision | Literal["auto"], setting: Setting, encoder: TextEncoder) -> Chosen:
    """The first time, ``auto`` loads the model twice and computes for some seconds; the result is kept in the cache
    folder. Raises UserError where the processor cannot do what is asked for."""
    amx = amx_is_here()
    if wanted not in ("auto", "f32") and not amx:
        raise UserError(
            f"This processor has no AMX, which precision={wanted} is for: leave it at auto, or choose precision=f32."
        )
    if wanted != "auto":
        return Chosen(wanted)
    if not amx:
        return Chosen("f32")
    kept = cache_folder() / "precision" / f"{_key(setting)}.json"
    try:
        measured = msgspec.json.decode(kept.read_bytes(), type=Measured)
    except (OSError, msgspec.DecodeError):
        try:
            measured = measure(setting, encoder)
        except KernelMissingError as error:
            return Chosen("f32", f"bf16x3 cannot be used: {error}")
        # Where it cannot be kept, it is measured again at the next start.
        with contextlib.suppress(UserError, OSError):
            write_checked(kept, [msgspec.json.encode(measured)], None)
    return decide(measured)


def decide(measured: Measured) -> Chosen:
    found = (
        f"beside f32, bf16x3 took {1 / measured.prefill:.2f} of the time for a prefill and "
        f"{1 / measured.decode:.2f} for a step of one token a row, and log-probabilities differed by at most "
        f"{measured.difference:.1g}"
    )
    return Chosen("bf16x3" if measured.good_enough else "f32", found)


def measure(setting: Setting, encoder: TextEncoder) -> Measured:
    """One after the other, as there may not be memory for both. Raises KernelMissingError."""
    tokens = encoder.encode(_PROBE_TEXT, special_tokens=True)
    split, plain = _Probe(setting, "bf16x3", tokens), _Probe(setting, "f32", tokens)
    return Measured(
        plain.prefill_seconds / split.prefill_seconds,
        plain.decode_seconds / split.decode_seconds,
        largest_difference(plain.logits, split.logits),
    )


class _Probe:
    """What one precision does with the probe text."""

    def __init__(self, setting: Setting, precision: Precision, tokens: list[int]) -> None:
        model = setting.load(precision)
        tokens = tokens[: model.blocks * model.block_size]
        blocks = list(range(-(-len(tokens) // model.block_size)))
        rows = tokens[: min(_ROWS, model.blocks)]
        decode = [Span([token], 0, [row], (0,)) for row, token in enumerate(rows)]
        prefill = Span(tokens, 0, blocks, tuple(range(len(tokens))))
        self.logits = model.forward([prefill]).copy()
        prefill = prefill._replace(samples=(len(tokens) - 1,))
        self.prefill_seconds = _seconds(lambda: model.forward([prefill]))
        self.decode_seconds = _seconds(lambda: model.forward(decode))


def _seconds(compute: Callable[[], object]) -> float:
    """Of the processor, all threads together: what else the machine is doing is no matter of the model's."""
    times: list[float] = []
    while len(times) < _TURNS and sum(times) < _MOST_SECONDS:
        began = time.process_time()
        compute()
        times.append(time.process_time() - began)
    return min(times)


def largest_difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Between the log-probabilities of two arrays of logits, (positions, vocabulary), over those tokens of each
    position that ``expected`` has as most probable."""
    largest = 0.0
    for one, other in zip(expected.astype(np.float64), found.astype(np.float64), strict=True):
        best = np.argpartition(-one, _MOST_PROBABLE)[:_MOST_PROBABLE]
        gap = (one - np.logaddexp.reduce(one))[best] - (other - np.logaddexp.reduce(other))[best]
        largest = max(largest, float(np.abs(gap).max()))
    return largest


def _key(setting: Setting) -> str:
    """Whatever the measurement depends on."""
    graph = setting.folder / MODEL_FILE
    digest = hashlib.sha256()
    for file in (graph, graph.with_suffix(".bin")):
        digest.update(sha256_of(file).encode())
    digest.update(f"{_PROBE} {setting.options} {require('openvino').__version__}".encode())
    digest.update(LINEAR.read_bytes())
    digest.update(processor_digest().encode())
    return digest.hexdigest()[:32]
