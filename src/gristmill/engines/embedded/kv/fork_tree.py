"""Which cells of a KV cache hold the same beginnings: a tree over token ids, as sequences have forked. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gristmill.engines.embedded.kv.prefix_cache import common_length


class ForkNode:
    """The cells of consecutive ``tokens``, from position ``start`` on, that the same sequences hold.

    The way to a node from the root spells what its cells were computed after. Siblings may begin alike, where two
    sequences computed the same tokens at the same time.
    """

    __slots__ = ("children", "holder", "interactive", "last_used", "parent", "running", "start", "tokens")

    def __init__(self, parent: ForkNode | None, start: int, tokens: list[int]) -> None:
        self.parent = parent
        self.start = start
        self.tokens = tokens
        self.children: list[ForkNode] = []
        #: The sequence id that ends here, if one does. One that is ``running`` grows, and has no children.
        self.holder: int | None = None
        self.running = False
        #: How many tokens the memory had computed in all when the node was used last.
        self.last_used = 0
        #: Somebody waited for one of the sequences that used it.
        self.interactive = False
        if parent is not None:
            parent.children.append(self)

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    def way_up(self) -> Iterator[ForkNode]:
        """The node itself and those above it, without the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent

    def any_holder(self) -> ForkNode:
        """A node that holds this one's cells by an id: itself, or one below it."""
        node = self
        while node.holder is None:
            node = node.children[0]
        return node

    def split(self, at: int) -> ForkNode:
        """Give the tokens before position ``at`` a node of their own, which is returned, above the rest."""
        assert self.parent is not None
        upper = ForkNode(self.parent, self.start, self.tokens[: at - self.start])
        upper.last_used, upper.interactive = self.last_used, self.interactive
        self.parent.children.remove(self)
        self.parent, self.start, self.tokens = upper, at, self.tokens[at - self.start :]
        upper.children.append(self)
        return upper


def longest_beginning(root: ForkNode, tokens: list[int]) -> tuple[ForkNode, int]:
    """The node in which ``tokens`` part from the tree, or end, and how many of them come before that."""
    node, at = root, 0
    while at < len(tokens) and at == node.end:
        rest = tokens[at:]
        child, length = _closest_child(node, rest)
        if child is None:
            break
        node, at = child, at + length
    return node, at


def longest_held(root: ForkNode, tokens: list[int]) -> tuple[ForkNode, int]:
    """The same among nodes that an id ends at, each taken whole."""
    longest, unseen = root, [root]
    while unseen:
        node = unseen.pop()
        if node.holder is not None and node.tokens and node.end > longest.end:
            longest = node
        unseen += [each for each in node.children if each.tokens == tokens[each.start : each.end]]
    return longest, longest.end


def _closest_child(node: ForkNode, rest: list[int]) -> tuple[ForkNode | None, int]:
    closest, longest = None, 0
    for child in node.children:
        if child.tokens and child.tokens[0] == rest[0]:
            length = common_length(child.tokens, rest)
            if length > longest:
                closest, longest = child, length
    return closest, longest
