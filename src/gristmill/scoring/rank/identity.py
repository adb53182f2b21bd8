"""What a ranking's folder was begun with: what is stored there was asked by these questions of these rows."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import msgspec

from gristmill.batches.job_folder import write_whole
from gristmill.scoring.backend import ScoreBackend
from gristmill.scoring.prompt import shared_body
from gristmill.scoring.questionnaire import Questionnaire
from gristmill.scoring.rank.goal import Goal
from gristmill.scoring.rank.proxies import Proxy
from gristmill.scoring.rank.stored import read_stored
from gristmill.user_error import UserError

PROXY_FOLDER = "proxy"
_NOTE = "ranking.json"
_PROXY, _GOAL = "proxy", "goal (top, cut, recall, precision, confidence, assumption)"


def identity_of(
    questionnaire: Questionnaire, judge: ScoreBackend, proxy: Proxy, goal: Goal, sign: int
) -> dict[str, Any]:
    """Part by part, for JSON. ``sign``: what scores are turned by for the goal."""
    settings = questionnaire.settings
    texts = hashlib.sha256()
    for row in range(goal.rows):
        text = questionnaire.text_of(row).encode()
        texts.update(b"%d:%b" % (len(text), text))
    shared = msgspec.json.encode([shared_body(settings.instrument, settings.method), settings.most_off_scale])
    assumed = goal.assume.name if goal.assume is not None else None
    identity = {
        "table or row template": texts.hexdigest(),
        "rubric, scale, examples or method": hashlib.sha256(shared).hexdigest(),
        "judge": [judge.model, judge.place],
        _PROXY: proxy.identity,
        _GOAL: [goal.top, goal.cut, sign, goal.recall, goal.precision, goal.confidence, assumed],
        "seed": goal.seed,
    }
    return msgspec.json.decode(msgspec.json.encode(identity))  # type: ignore[no-any-return]


def check_identity(folder: Path, identity: dict[str, Any], has_guesses: bool) -> None:
    """Notes it in a folder that is begun. Where there is no more than a pilot yet, which depends on neither, another
    goal or proxy may go on; what a former proxy has done goes. Raises UserError."""
    begun: dict[str, Any] = read_stored(folder / _NOTE, dict) or {}
    changed = {name for name, value in identity.items() if begun.get(name) != value}
    if begun and changed and (has_guesses or not changed <= {_PROXY, _GOAL}):
        named = " and ".join(name for name in identity if name in changed)
        raise UserError(
            f"The {named} changed since this was started: undo that to go on, or delete {folder} to start afresh."
        )
    if changed:
        folder.mkdir(parents=True, exist_ok=True)
        if _PROXY in changed:
            shutil.rmtree(folder / PROXY_FOLDER, ignore_errors=True)
        write_whole(folder / _NOTE, msgspec.json.encode(identity))
