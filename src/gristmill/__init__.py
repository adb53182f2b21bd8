"""Gristmill: huge batches of LLM requests that share most of their prompt, on machines you own.

From Python: ``gristmill.score``, ``gristmill.rank``, ``gristmill.audit``, ``gristmill.compare`` and
``gristmill.verify`` for the rows of a frame, ``gristmill.agreement`` and ``gristmill.calibrate`` of scores with right
ones, ``gristmill.Client`` for batches on a server. What a person has to mend is a ``gristmill.UserError``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.client import Client as Client
    from gristmill.engines.registry import EngineSettings as EngineSettings
    from gristmill.scoring.calibrated_table import TruthUse as TruthUse
    from gristmill.scoring.calibration import Aims as Aims
    from gristmill.scoring.calibration import calibrate as calibrate
    from gristmill.scoring.frames import Better as Better
    from gristmill.scoring.frames import Scored as Scored
    from gristmill.scoring.frames import ScoreServer as ScoreServer
    from gristmill.scoring.frames import audit as audit
    from gristmill.scoring.frames import compare as compare
    from gristmill.scoring.frames import score as score
    from gristmill.scoring.frames import verify as verify
    from gristmill.scoring.questionnaire import ScoreOptions as ScoreOptions
    from gristmill.scoring.rank.frames import Best as Best
    from gristmill.scoring.rank.frames import EmbeddingModel as EmbeddingModel
    from gristmill.scoring.rank.frames import rank as rank
    from gristmill.scoring.truth import agreement as agreement
    from gristmill.user_error import UserError as UserError

__version__ = "0.1.0"

_MODULES = {
    "Aims": "scoring.calibration",
    "Best": "scoring.rank.frames",
    "Better": "scoring.frames",
    "Client": "client",
    "EmbeddingModel": "scoring.rank.frames",
    "EngineSettings": "engines.registry",
    "ScoreOptions": "scoring.questionnaire",
    "TruthUse": "scoring.calibrated_table",
    "ScoreServer": "scoring.frames",
    "UserError": "user_error",
    "Scored": "scoring.frames",
    "agreement": "scoring.truth",
    "audit": "scoring.frames",
    "rank": "scoring.rank.frames",
    "calibrate": "scoring.calibration",
    "compare": "scoring.frames",
    "score": "scoring.frames",
    "verify": "scoring.frames",
}
__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    """Imported when asked for: the command line must not wait for tables."""
    if name not in _MODULES:
        raise AttributeError(f"module 'gristmill' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gristmill.{_MODULES[name]}"), name)
