"""Which prefixes are worth keeping on disk: those that rows of batches really share. Pure.

What a row finds computed says so: its prefix has been computed for another. Rows that happen to begin alike find a few
tokens more than what they are to share, so prefixes count as one where what each has of its own is too little to
be worth a file, and what is kept is what all of them had in common.
"""

from __future__ import annotations

import numpy as np

from gristmill.engines.embedded.prefix_files.prefix_tokens import Tokens, common_tokens

#: Fewer are computed about as soon as they are read, and would fill the folder with small files.
LEAST_TOKENS = 256
#: Requests that must have found a prefix. Choices of one request count once: they share all of it, with nobody else.
_FINDERS = 3
#: Prefixes that are remembered, the last ones found.
_REMEMBERED = 64


class SharedPrefix:
    """``tokens`` that several rows begin with."""

    def __init__(self, tokens: Tokens, finder: int) -> None:
        self.tokens = tokens
        self.finders = {finder}
        #: For who keeps it: whether it has been offered for that, and when its use was last noted.
        self.offered = False
        self.noted = 0.0


class SharedPrefixes:
    def __init__(self) -> None:
        #: The one found last is last.
        self._prefixes: list[SharedPrefix] = []

    def find(self, request: int, tokens: list[int]) -> SharedPrefix | None:
        """A row of a batch, of the request of that number, has found ``tokens`` computed. Returns the prefix once
        several have; None before, and where it is short."""
        if len(tokens) < LEAST_TOKENS:
            return None
        found = np.array(tokens, np.int32)
        for prefix in reversed(self._prefixes):
            common = common_tokens(prefix.tokens, found)
            if common >= LEAST_TOKENS and max(len(prefix.tokens), len(found)) - common < LEAST_TOKENS:
                break
        else:
            self._remember(SharedPrefix(found, request))
            return None
        self._prefixes.remove(prefix)
        self._prefixes.append(prefix)
        if len(prefix.finders) < _FINDERS:
            prefix.tokens = prefix.tokens[:common]
            prefix.finders.add(request)
        return prefix if len(prefix.finders) >= _FINDERS else None

    def _remember(self, prefix: SharedPrefix) -> None:
        self._prefixes.append(prefix)
        del self._prefixes[:-_REMEMBERED]
