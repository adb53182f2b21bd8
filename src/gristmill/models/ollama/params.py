"""The layer of parameters of an Ollama model. Pure.

Names and types: ``Options`` in https://github.com/ollama/ollama/blob/main/api/types.go, whose unknown names Ollama
itself ignores.
"""

from __future__ import annotations

import msgspec

from gristmill.models.defaults import Parameters


class _Params(msgspec.Struct):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: float | None = None
    num_predict: float | None = None
    num_ctx: float | None = None
    stop: list[str] | None = None


#: Tokens that ``repeat_penalty`` looks back, where ``repeat_last_n`` is not given.
_LAST_N = 64


def read_params(content: bytes) -> Parameters:
    """Raises msgspec.DecodeError (and so its ValidationError) for what Ollama would not take, either."""
    params = msgspec.json.decode(content, type=_Params)
    last = _LAST_N if params.repeat_last_n is None else int(params.repeat_last_n)
    # 0 of either: none.
    penalty = params.repeat_penalty if last and (params.repeat_penalty or 0) > 0 else None
    return Parameters(
        temperature=None if params.temperature is None else max(params.temperature, 0.0),
        top_p=None if params.top_p is None else min(max(params.top_p, 0.0), 1.0),
        # 0 and less: all tokens.
        top_k=_positive(params.top_k),
        min_p=None if params.min_p is None else min(max(params.min_p, 0.0), 1.0),
        repetition_penalty=penalty,
        # -1: as far back as the context goes.
        repetition_window=last if penalty is not None and last > 0 else None,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        # -1: another one each time.
        seed=int(params.seed) if params.seed is not None and params.seed != -1 else None,
        stop=tuple(filter(None, params.stop or [])),
        # -1 and -2: until the model ends, or the context does.
        max_tokens=_positive(params.num_predict),
        context_length=_positive(params.num_ctx),
    )


def _positive(value: float | None) -> int | None:
    return int(value) if value is not None and value >= 1 else None
