"""LongRoPE (Phi 3 and 4, https://arxiv.org/abs/2402.13753): models with two sets of rotary factors, for sequences up
to the context that they were first trained for, and for longer ones.

The graph chooses by the longest sequence of a step. In a step of many rows one of them would decide for all, and a
prefix may have been computed with the other set than the rows behind it. So one set holds for all sequences, as in vLLM
and llama.cpp, which choose it by the context length they are started with.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gristmill.extras import require
from gristmill.user_error import UserError

#: Longer than any context, and the graph may add one to it.
_FAR = 2**31 - 2


def settle_factors(model: Any, long: bool) -> None:
    """Let the stateful graph (before its paged transformation) choose the factors for long sequences, or those for
    short ones, whatever it computes. A graph with one set stays as it is; UserError when it is to be the long one."""
    ov = require("openvino")
    found = False
    for parameter in model.get_parameters():
        if "position_ids" not in parameter.output(0).get_names():
            continue
        for target in parameter.output(0).get_target_inputs():
            highest = target.get_node()
            if highest.get_type_name() != "ReduceMax":
                continue
            decided = np.array(_FAR if long else 0, highest.get_output_element_type(0).to_dtype())
            highest.output(0).replace(ov.opset13.constant(decided).output(0))
            found = True
    if long and not found:
        raise UserError(
            "This model's graph has one set of rotary factors only: leave out -O long_context, or, if the model itself "
            "has two, convert it again with a newer optimum-intel."
        )
