"""What a model needs on each side, and how many of its layers the GPUs have room for. Pure."""

from __future__ import annotations

from typing import NamedTuple

from gristmill.engines.embedded.llama_cpp.devices import Device

#: Kept free on each GPU: the driver's own share, and what others that use it may want a little later.
_RESERVE = 512 * 2**20


class Needs(NamedTuple):
    """Bytes: weights and KV cache of all layers together, and what a step needs besides on everything that computes.
    The output counts as one of the ``layers``."""

    layers: int
    weights: int
    kv_cache: int
    step: int

    def on_host(self, gpu_layers: int) -> int:
        """Beside so many layers on GPUs. Layers are taken to be alike, which they nearly are."""
        share = 1 - min(gpu_layers, self.layers) / self.layers
        return int((self.weights + self.kv_cache) * share) + self.step


def layers_that_fit(needs: Needs, targets: list[Device]) -> int:
    """llama.cpp spreads layers over GPUs by their free memory, each with its share of the KV cache."""
    each = (needs.weights + needs.kv_cache) / needs.layers
    fitting = sum(int(max(device.free - _RESERVE - needs.step, 0) // each) for device in targets)
    return min(fitting, needs.layers)


def fewer_layers(layers: int) -> int:
    """What to try where a GPU had less room than its driver said: a quarter less, and at the end none."""
    return layers * 3 // 4
