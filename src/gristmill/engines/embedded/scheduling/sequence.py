"""One sequence being computed: its tokens, and how many of them have KV state."""

from __future__ import annotations


class Sequence:
    """``tokens`` is the prompt followed by what has been generated; the first ``computed`` of them have KV state.

    ``cached_tokens`` is what the first admission found in the KV memory; a resumption after preemption does not count.
    """

    __slots__ = (
        "arrival",
        "cached_tokens",
        "computed",
        "first_wanted",
        "fork_at",
        "interactive",
        "leader",
        "leader_tokens",
        "preemptions",
        "prompt_tokens",
        "shared",
        "tokens",
        "urgent",
    )

    def __init__(self, prompt: list[int], first_wanted: int | None = None, interactive: bool = False) -> None:
        self.tokens = list(prompt)
        self.prompt_tokens = len(prompt)
        self.computed = 0
        #: How many of its tokens others have as well: what it began with itself, and what was kept of it since.
        self.shared = 0
        self.cached_tokens: int | None = None
        #: Index of the first token whose logits are wanted; None: only those of the last.
        self.first_wanted = first_wanted
        #: Somebody is waiting for the answer.
        self.interactive = interactive
        #: Goes before those that are not: interactive, or its turn among interactive ones.
        self.urgent = interactive
        self.arrival = 0
        self.preemptions = 0
        #: The sequence this one waits for, and how many tokens that must have computed first.
        self.leader: Sequence | None = None
        self.leader_tokens = 0
        #: How many tokens it has computed when others will begin with them.
        self.fork_at = 0

    @property
    def order(self) -> tuple[bool, int]:
        """Its place in the order of work: urgent ones first, then as they came."""
        return (not self.urgent, self.arrival)

    @property
    def reusable(self) -> int:
        """How many tokens at most may come from the KV memory: cached ones give no logits."""
        return len(self.tokens) - 1 if self.first_wanted is None else self.first_wanted

    @property
    def pending(self) -> int:
        """Tokens without KV state."""
        return len(self.tokens) - self.computed
