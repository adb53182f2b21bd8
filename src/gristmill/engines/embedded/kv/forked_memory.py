"""A KV cache of cells, as llama.cpp's unified one is: any sequence may begin as another does, at no cost.

A cell holds one token's keys and values, and belongs to any number of sequences. Every token's attention walks all
cells, those of other sequences too. So what nobody uses costs something in each step, unlike an idle block of a paged
cache, and has to go:

- What a batch's row has computed goes with it, but for what waiting rows have in common with it. A beginning that
  several have shared stays, as an idle prefix where nobody is left who uses it.
- A row that has shared nothing may be the first of many, and what somebody waited for may be gone on with, as chats
  are: those stay as idle prefixes themselves.
- An idle prefix goes when its cells or its id are needed, that which was used longest ago first; or when having it has
  cost as much as it is worth (``_allowance``).

Where two sequences part, the tree of what was forked (``fork_tree.py``) has a node, however they came to it. So
prefixes within prefixes need no more: a rubric, a document behind it, questions behind that.
"""

from __future__ import annotations

from typing import NamedTuple

from gristmill.engines.embedded.kv.fork_tree import ForkNode, longest_beginning, longest_held
from gristmill.engines.embedded.scheduling.sequence import Sequence

#: How many times its own length may be computed for others before an idle prefix of a batch goes. Rows that share
#: nothing leave no more idle cells behind than two of them have, few beside those of all that run. Whatever shares with
#: them mostly comes next, as a batch's rows are ordered by what they share, and begins while they still run.
PATIENCE = 2


class Fork(NamedTuple):
    """``target``, which is empty, begins with the first ``tokens`` tokens of ``source``; both are sequence ids."""

    source: int
    target: int
    tokens: int


class Forget(NamedTuple):
    """Of the sequence with this id, nothing from position ``start`` on; what others share stays theirs."""

    sequence: int
    start: int


class _Held:
    """What a sequence that has begun holds: its ``node``, and ``room`` for so many tokens, computed or not."""

    __slots__ = ("node", "place", "room", "spoilt")

    def __init__(self, node: ForkNode, place: int) -> None:
        self.node = node
        self.place = place
        self.room = node.start
        self.spoilt = False


class ForkedMemory:
    """``KvMemory``, where a place is a sequence id: 0 to ``sequences - 1``."""

    #: Waiting for a leader takes a step; fewer tokens than these make one hardly longer.
    grain = 32

    def __init__(self, cells: int, sequences: int, partial: bool = True, rent: int = 4096, window: int = 0) -> None:
        """``cells``: tokens that the KV cache has room for, shared ones counted once.

        ``partial``: whether a sequence can be forked and cut at any token. The state of a recurrent model is that after
        all of a sequence's tokens, and such a one is only forked as it stands, and only forgotten as a whole.

        ``rent``: the number of cells whose part in a token's attention takes as long as the rest of the token's
        computing; about six times the width of the model (12 layers' weights of width squared each against two
        products of that width with each cell, at two floating-point operations a weight).

        ``window``: tokens that the layers with the shortest window attend to; 0 where there are none. llama.cpp gives
        cells of such layers to others once the window of the only sequence that holds them has passed, also where the
        cache is of full size (``llama_kv_cache::find_slot``). A fork before a sequence's end would miss them.
        """
        if sequences < 2:
            raise ValueError("nothing can be forked with fewer than two sequences")
        self.tokens = cells
        self.partial = partial and not window
        self._rent = rent
        self._window = window
        self._root = ForkNode(None, 0, [])
        self._free_cells = cells
        self._free_ids = list(range(sequences - 1, -1, -1))
        self._held: dict[Sequence, _Held] = {}
        #: Nodes at which an id ends that is no running sequence's, by that id.
        self._kept: dict[int, ForkNode] = {}
        #: Tokens computed so far.
        self._clock = 0
        self._moves: list[Fork | Forget] = []

    def match(self, sequence: Sequence) -> int:
        node, at = self._find(sequence)
        # Whoever will begin with it soon still has to see it.
        self._use(node, sequence)
        return at

    def shared_at(self, running: Sequence, common: int) -> int:
        return common

    def begin(self, sequence: Sequence, tokens: int) -> bool:
        node, at = self._find(sequence)
        spare = len(self._held)
        if self._held and tokens - at + spare > self._available(node, at):
            return False
        source = node.any_holder() if at else None
        place = self._take_id(source)
        if place is None:
            return False
        if source is not None and source.holder is not None:
            self._moves.append(Fork(source.holder, place, at))
        if at < node.end or node.running:
            node = node.split(at)
        leaf = ForkNode(node, at, [])
        leaf.holder, leaf.running = place, True
        self._held[sequence] = _Held(leaf, place)
        self._use(leaf, sequence)
        reserved = self._evict_cells(tokens - at + spare) and self.reserve(sequence, tokens)
        assert reserved
        return True

    def reserve(self, sequence: Sequence, tokens: int) -> bool:
        held = self._held[sequence]
        need = tokens - held.room
        if need > 0:
            if not self._evict_cells(need):
                return False
            self._free_cells -= need
            held.room = tokens
        return True

    def note_computed(self, sequence: Sequence) -> None:
        node = self._held[sequence].node
        computed = sequence.tokens[node.end : sequence.computed]
        node.tokens += computed
        self._clock += len(computed)

    def parts_at(self, sequence: Sequence) -> int:
        return 0 if self.partial else longest_beginning(self._root, sequence.tokens[: sequence.reusable])[1]

    def keep(self, sequence: Sequence) -> None:
        node = self._held[sequence].node
        if self.partial or not node.tokens:
            return
        place = self._take_id(node)
        if place is not None:
            self._moves.append(Fork(self.place(sequence), place, node.end))
            self._keep(node.split(node.end), place)

    def rewinds(self, sequence: Sequence) -> bool:
        if self.partial:
            return True
        held = self._held[sequence]
        # What the window passes in the step is shared, and kept by an id that stays where it is.
        node, kept = held.node, held.node.parent
        return held.room < self._window + node.start and (kept is self._root or kept in self._kept.values())

    def spoil(self, sequence: Sequence) -> None:
        held = self._held[sequence]
        if self.rewinds(sequence):
            self._moves.append(Forget(held.place, held.node.end))
        else:
            held.spoilt = True

    def release(self, sequence: Sequence, wanted: int = 0) -> None:
        held = self._held.pop(sequence)
        node = held.node
        self._free_cells += held.room - node.end
        self._use(node, sequence)
        node.running = False
        self._keep(node, held.place)
        if held.spoilt or not node.tokens:
            self._drop(node)
        elif not sequence.interactive and (wanted or node.parent is not self._root):
            self._cut(node, max(wanted, node.start))

    def place(self, sequence: Sequence) -> int:
        return self._held[sequence].place

    def take_moves(self) -> list[Fork | Forget]:
        for node in list(self._kept.values()):
            if not node.children and self._clock - node.last_used > self._allowance(node):
                self._drop(node)
        moves, self._moves = self._moves, []
        return moves

    def _allowance(self, node: ForkNode) -> float:
        """How many tokens may be computed for others before an idle prefix goes.

        Rent or buy: each of them walks the prefix's cells, and computing the prefix again would cost what ``rent`` and
        the cells before them say; at so many tokens both have cost the same, whatever its length. Going then costs at
        most twice as much as going at the best of times. What nobody waits for is less likely to be asked for again,
        the shorter it is.
        """
        worth = self._rent + (node.start + node.end) / 2
        return worth if node.interactive else min(worth, PATIENCE * len(node.tokens))

    def _find(self, sequence: Sequence) -> tuple[ForkNode, int]:
        tokens = sequence.tokens[: sequence.reusable]
        return longest_beginning(self._root, tokens) if self.partial else longest_held(self._root, tokens)

    def _use(self, node: ForkNode, sequence: Sequence) -> None:
        for each in node.way_up():
            each.last_used = self._clock
            each.interactive = each.interactive or sequence.interactive

    def _available(self, node: ForkNode, at: int) -> int:
        """Cells that are free or could be, if the first ``at`` tokens of the way to ``node`` were in use."""
        busy = {each for held in self._held.values() for each in held.node.way_up()}
        cells = sum(len(each.tokens) for each in busy)
        cells += sum(min(each.end, at) - each.start for each in node.way_up() if each not in busy)
        return self.tokens - cells - sum(held.room - held.node.end for held in self._held.values())

    def _take_id(self, source: ForkNode | None) -> int | None:
        """An id that holds nothing; ``source`` keeps its own. None where all others are those of running sequences."""
        while not self._free_ids:
            idle = [each for each in self._kept.values() if each is not source]
            if not idle:
                return None
            # That of a beginning whose cells others hold as well is not missed.
            self._drop(min(idle, key=lambda each: (not (self.partial and each.children), each.last_used)))
        return self._free_ids.pop()

    def _evict_cells(self, need: int) -> bool:
        """Cut idle prefixes until so many cells are free, those used longest ago first, from their ends."""
        while self._free_cells < need:
            idle = [each for each in self._kept.values() if not each.children]
            if not idle:
                return False
            node = min(idle, key=lambda each: each.last_used)
            self._cut(node, max(node.end - (need - self._free_cells), node.start))
        return True

    def _keep(self, node: ForkNode, place: int) -> None:
        node.holder = place
        self._kept[place] = node

    def _id_of(self, node: ForkNode) -> int:
        assert node.holder is not None
        return node.holder

    def _cut(self, node: ForkNode, end: int) -> None:
        """Keep what an id holds at ``node`` up to position ``end`` only; where it cannot be cut, nothing of it."""
        if end >= node.end:
            return
        if end == node.start or not self.partial:
            self._drop(node)
            return
        self._moves.append(Forget(self._id_of(node), end))
        self._free_cells += node.end - end
        del node.tokens[end - node.start :]

    def _drop(self, node: ForkNode) -> None:
        """End keeping what an id holds at ``node``. The id stays with the beginning before that, where no other has
        it."""
        place = self._id_of(node)
        node.holder = None
        del self._kept[place]
        rest = self._prune(node)
        if rest.parent is not None and self.partial and not rest.children and rest.holder is None:
            self._moves.append(Forget(place, rest.end))
            self._keep(rest, place)
        else:
            self._moves.append(Forget(place, 0))
            self._free_ids.append(place)

    def _prune(self, node: ForkNode) -> ForkNode:
        """Give back the cells that no id holds any more; returns the node above them."""
        while node.parent is not None and not node.children and node.holder is None:
            self._free_cells += len(node.tokens)
            node.parent.children.remove(node)
            node = node.parent
            if self.partial:
                break
        return node
