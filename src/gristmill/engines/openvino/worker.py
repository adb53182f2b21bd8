"""The engine's own process: ``python -m gristmill.engines.openvino.worker``, frames on standard input and output.

It ends when its input does, so it never outlives the server, however that ends. An interrupt from the terminal is the
server's to handle.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, BinaryIO

from gristmill.engines.openvino import frames
from gristmill.engines.openvino.frames import Cancel, Load, LoadFailed, Ready, Submit, SubmitScore, ToWorker
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from gristmill.engines.openvino.runner import Runner


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print to standard output as they like: keep it for frames by moving theirs to standard error.
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
    threading.Thread(target=_read_frames, args=(sys.stdin.buffer, inbox), daemon=True).start()
    load = inbox.get()
    assert isinstance(load, Load)
    try:
        runner = _load(load, output)
    except UserError as error:
        _write(output, LoadFailed(str(error), user_error=True))
        os._exit(1)
    except Exception:
        _write(output, LoadFailed(traceback.format_exc(limit=-3), user_error=False))
        os._exit(1)
    while True:
        while not inbox.empty() or not runner.busy:
            frame = inbox.get()
            if isinstance(frame, Submit):
                runner.submit(frame)
            elif isinstance(frame, SubmitScore):
                runner.submit_score(frame)
            elif isinstance(frame, Cancel):
                runner.cancel(frame.id)
        runner.step()


def _load(load: Load, output: BinaryIO) -> Runner:
    from gristmill.models.extra import require

    for package in ("jinja2", "llguidance", "numpy", "gguf", "openvino", "openvino_genai", "openvino_tokenizers"):
        require(package)
    # Imported here: reading the input must have begun before the first slow import.
    from gristmill.engines.openvino.grammar import Grammars
    from gristmill.engines.openvino.paged import PagedModel
    from gristmill.engines.openvino.prepare import prepare
    from gristmill.engines.openvino.prompt import JobReader
    from gristmill.engines.openvino.runner import Runner
    from gristmill.engines.openvino.vocabulary import Vocabulary
    from gristmill.models.locate import locate

    options = load.options
    folder, facts = prepare(locate(load.model), options.weights)
    try:
        model = PagedModel(folder, int(options.kv_cache_gb * 2**30), options.threads, options.attention)
    except MemoryError as error:
        raise UserError(
            f"This machine cannot reserve {options.kv_cache_gb:g} GiB for the KV cache: choose less with kv_cache_gb."
        ) from error
    vocabulary = Vocabulary(folder)
    context_length = min(facts.context_length, model.blocks * model.block_size)
    ends = frozenset(facts.eos_token_ids) | {vocabulary.eos_token_id}
    runner = Runner(
        model,
        vocabulary,
        JobReader(vocabulary, Grammars(vocabulary, ends), context_length),
        ends,
        options.step_tokens,
        options.max_rows,
        lambda frame: _write(output, frame),
    )
    _write(output, Ready(context_length, model.fallback))
    return runner


def _write(output: BinaryIO, frame: frames.FromWorker) -> None:
    data = memoryview(frames.encode(frame))
    while data:
        data = data[output.write(data) :]


def _read_frames(source: BinaryIO, inbox: queue.SimpleQueue[ToWorker]) -> None:
    while len(head := source.read(frames.LENGTH_BYTES)) == frames.LENGTH_BYTES:
        inbox.put(frames.decode_to_worker(source.read(int.from_bytes(head, "little"))))
    # The server is gone. There is nothing to save, and the main thread may be deep in a kernel.
    os._exit(0)


if __name__ == "__main__":
    main()
