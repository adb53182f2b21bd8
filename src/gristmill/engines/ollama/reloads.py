"""Finding out that Ollama reloads the model over and over, and why. Pure.

A reload takes seconds and throws the prefix cache away. It happens when two clients ask for one model with different
runner options, when another model needs the memory, or when another client's ``keep_alive`` lets the model go.
"""

from __future__ import annotations

from gristmill.engines.ollama.facts import find_running, stays_forever
from gristmill.engines.ollama.wire import RunningModel

#: Seconds of load_duration that mean a load. A loaded model shows milliseconds, up to 0.1 s on busy servers; the
#: smallest model we recorded (135M, 0.1 GB, in the page cache) shows 0.5 s when it is loaded.
LOAD_SECONDS = 0.4
#: More loads than this in one run are a storm.
STORM = 2
#: Rows for which the server's list of loaded models is looked at before sending, after each reload.
_WATCHED_ROWS = 8


class ReloadWatch:
    """Counts loads, and collects what was seen to differ from what this engine asks for."""

    def __init__(self, model: str, num_ctx: int) -> None:
        self._model = model
        self._num_ctx = num_ctx
        self._counted_at = float("-inf")
        self._watched = 0
        self._warn_at = STORM + 1
        self._causes: dict[str, None] = {}
        #: Loads since the engine loaded the model itself.
        self.loads = 0

    def row(self, load_seconds: float, sent_at: float, now: float) -> bool:
        """Whether the row found the model not loaded; times are of one clock, in seconds.

        Rows that were waiting for the same load count it once.
        """
        if load_seconds < LOAD_SECONDS or sent_at < self._counted_at:
            return False
        self._counted_at = now
        self._watched = _WATCHED_ROWS
        self.loads += 1
        return True

    def should_look(self) -> bool:
        """Whether to look at the loaded models before the next row: there the other client's options show."""
        if self._watched == 0:
            return False
        self._watched -= 1
        return True

    def looked(self, running: list[RunningModel]) -> None:
        for cause in differences(running, self._model, self._num_ctx):
            self._causes[cause] = None

    def warning(self) -> str | None:
        """What to tell the user now; again only when the loads have doubled."""
        if self.loads < self._warn_at:
            return None
        self._warn_at = self.loads * 2
        return "; ".join(self._causes) or (
            "nothing that the server shows differs, so another client probably uses the same model with another "
            "num_batch, num_gpu, num_thread, use_mmap or shift (every /v1 client sends none)"
        )


def differences(running: list[RunningModel], model: str, num_ctx: int) -> list[str]:
    """What the list of loaded models shows to be different from what this engine asked for, each in words."""
    found = []
    ours = find_running(running, model)
    if ours is not None and ours.context_length not in (None, num_ctx):
        found.append(
            f"num_ctx differs: another client loaded {model} with {ours.context_length}, this run uses {num_ctx}"
        )
    if ours is not None and not stays_forever(ours):
        found.append(f"keep_alive differs: another client let {model} expire at {ours.expires_at}, this run sends -1")
    others = [each.name for each in running if each is not ours]
    if others:
        found.append(f"also loaded: {', '.join(others)}, which may have pushed {model} out of memory")
    elif ours is None:
        found.append(f"{model} was unloaded by another client, by a restart or for lack of memory")
    return found
