"""Reasoning as ``encrypted_content``, for clients that send it back in no other form. Pure.

Clients must not look into it, so that it needs no key: it is the text, encoded.
"""

from __future__ import annotations

import base64

_MARK = "gristmill."


def opaque(text: str) -> str:
    return _MARK + base64.b64encode(text.encode("utf-8", "replace")).decode()


def text_of(content: str) -> str | None:
    """None where it was not made here."""
    if not content.startswith(_MARK):
        return None
    try:
        return base64.b64decode(content.removeprefix(_MARK), validate=True).decode()
    except ValueError:
        return None
