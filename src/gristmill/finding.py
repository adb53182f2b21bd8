"""What a look at a server or its data finds."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["ok", "note", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """``detail`` is what was seen; ``advice`` what to do about it, empty where nothing needs doing."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""
