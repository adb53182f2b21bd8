"""Which tokens of a step attend to which KV blocks together. Pure.

Tokens whose past begins with the same blocks are gathered into a tile: those blocks are then read once for all of them,
a matrix product instead of a pass over the prefix for each row. Nested prefixes need no structure of their own: the
spans are sorted by their blocks, so that neighbours share the most, and a tile ends where sharing would drop by half.

What is shared is a whole number of the kernel's chunks, the blocks between two updates of the softmax: so each token's
softmax is updated at the same positions whoever is in its tile, and its result is the same to the bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gristmill.engines.embedded.openvino.kv_cache import BlockSpan

Ints = NDArray[np.int32]


class AttentionPlan(NamedTuple):
    """Indices for ``attend`` in attention.c, where ``Tile`` and ``Run`` are described.

    ``tiles`` has shape (tiles, 4), ``runs`` (runs, 4); ``order`` lists the step's tokens tile by tile; ``slots`` tells
    where each of the step's tokens, in the step's order, is stored: block times block size plus offset.
    """

    tiles: Ints
    runs: Ints
    order: Ints
    blocks: Ints
    slots: Ints


class Piece(NamedTuple):
    """``length`` tokens of a span: the first is token ``begin`` of the step, and comes after ``past`` others."""

    begin: int
    length: int
    past: int
    blocks: list[int]


def plan_attention(spans: list[BlockSpan], block_size: int, tile_tokens: int, chunk_blocks: int) -> AttentionPlan:
    """Every token of ``spans`` in exactly one tile of at most ``tile_tokens`` tokens. ``chunk_blocks``: CHUNK of
    attention.c."""
    tiles: list[tuple[int, int, int, int]] = []
    runs: list[tuple[int, int, int, int]] = []
    order: list[Ints] = []
    blocks: list[int] = []
    placed = 0
    for pieces, shared in _gather(spans, block_size, tile_tokens, chunk_blocks):
        first_run = len(runs)
        first_block = len(blocks)
        blocks += pieces[0].blocks[:shared]
        for piece in pieces:
            used = -(-(piece.past + piece.length) // block_size)
            runs.append((placed, placed + piece.length, len(blocks), piece.past - shared * block_size + 1))
            blocks += piece.blocks[shared:used]
            order.append(np.arange(piece.begin, piece.begin + piece.length, dtype=np.int32))
            placed += piece.length
        tiles.append((first_run, len(runs), first_block, shared))
    return AttentionPlan(
        np.array(tiles, np.int32),
        np.array(runs, np.int32),
        np.concatenate(order),
        np.array(blocks, np.int32),
        np.concatenate([_slots(span, block_size) for span in spans]),
    )


def _gather(
    spans: list[BlockSpan], block_size: int, tile_tokens: int, chunk_blocks: int
) -> Iterator[tuple[list[Piece], int]]:
    """Tiles as pieces, each with the number of leading blocks that its pieces share and see in full: whole chunks."""
    tile: list[Piece] = []
    shared = room = 0
    for piece in _pieces(spans, block_size, tile_tokens):
        full = piece.past // block_size
        common = _common(tile[0].blocks, piece.blocks, min(shared, full)) if tile else full
        common -= common % chunk_blocks
        if tile and (piece.length > room or 2 * common < shared):
            yield tile, shared
            tile, common = [], full - full % chunk_blocks
        if not tile:
            room = tile_tokens
        tile.append(piece)
        shared = common
        room -= piece.length
    yield tile, shared


def _pieces(spans: list[BlockSpan], block_size: int, tile_tokens: int) -> Iterator[Piece]:
    """The spans, those with the same blocks next to each other, none longer than a tile."""
    begins = itertools.accumulate((len(span.tokens) for span in spans), initial=0)
    placed = sorted(zip(spans, begins, strict=False), key=lambda each: each[0].place[: each[0].past // block_size])
    for span, begin in placed:
        for offset in range(0, len(span.tokens), tile_tokens):
            count = min(tile_tokens, len(span.tokens) - offset)
            yield Piece(begin + offset, count, span.past + offset, span.place)


def _common(one: list[int], other: list[int], most: int) -> int:
    if one[:most] == other[:most]:
        return most
    return next(i for i in range(most) if one[i] != other[i])


def _slots(span: BlockSpan, block_size: int) -> Ints:
    positions = np.arange(span.past, span.past + len(span.tokens))
    slots: Ints = (np.asarray(span.place)[positions // block_size] * block_size + positions % block_size).astype(
        np.int32
    )
    return slots
