"""How many of a model's layers the GPUs have room for. Pure."""

from __future__ import annotations

from gristmill.engines.embedded.llama_cpp.devices import Device
from gristmill.engines.embedded.llama_cpp.needs import Needs

#: Kept free on each GPU: the driver's own share, and what others that use it may want a little later.
_RESERVE = 512 * 2**20


def layers_that_fit(needs: Needs, targets: list[Device]) -> int:
    """llama.cpp spreads layers over GPUs by their free memory, each with its share of the KV cache."""
    each = (needs.weights + needs.kv_cache) / needs.layers
    fitting = sum(int(max(device.free - _RESERVE - needs.step, 0) // each) for device in targets)
    return min(fitting, needs.layers)


def fewer_layers(layers: int) -> int:
    """What to try where a GPU had less room than its driver said: a quarter less, and at the end none."""
    return layers * 3 // 4
