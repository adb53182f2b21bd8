"""What a library that runs models may give besides: KV state as bytes, so that prefixes can be kept on disk."""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

from gristmill.engines.embedded.prefix_files.prefix_file import Slice

#: Where a sequence's KV state is, as the runner's KV memory has it.
Place = TypeVar("Place", contravariant=True)


@runtime_checkable
class KvTransfer(Protocol[Place]):
    """Beside ``ModelRunner``, and used by the same thread."""

    #: All that the bytes depend on besides the model's files, the engine's options and the tokens: the library and its
    #: version, element types, layout, and what computes (processors differ in how they round). None: nothing can be
    #: exported of this model.
    kv_format: str | None
    #: Tokens that are exported together, which takes a few milliseconds.
    slice_tokens: int

    def export_kv(self, place: Place, begin: int, end: int) -> bytes | memoryview:
        """KV state of the tokens from ``begin``, a multiple of ``slice_tokens``, to ``end`` of the sequence at
        ``place``. Raises ValueError where it is not there any more."""
        ...

    def import_kv(self, place: Place, piece: Slice, begin: int, end: int) -> None:
        """Of an exported slice, put the state of the tokens from ``begin`` to ``end`` to the same tokens of the
        sequence at ``place``, which has that of all before them. Raises ValueError where the slice is no such thing,
        MemoryError where there is no room to do it."""
        ...
