from __future__ import annotations

import threading

import numpy as np
import psutil

from gristmill.engines.embedded.openvino.kv_cache import populate


def test_memory_is_given_at_once_and_keeps_what_it_holds():
    array = np.zeros(64 * 2**20 // 4, np.float32)
    array[::100_003] = 7
    before = psutil.Process().memory_info().rss
    populate(array)
    for thread in threading.enumerate():
        if thread.name == "populate":
            thread.join(60)
    assert (array[::100_003] == 7).all()
    assert array.sum() == 7 * len(array[::100_003])
    grown = psutil.Process().memory_info().rss - before
    # Old kernels give it page by page; then nothing has changed.
    assert grown >= 0
