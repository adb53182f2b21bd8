"""How many there are of something, in words."""

from __future__ import annotations


def counted(count: int, one: str, many: str) -> str:
    """Such as '1 batch' and '1,200 batches'."""
    return f"{count:,} {one if count == 1 else many}"
