"""``gristmill plan``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from gristmill.cli import show
from gristmill.planning.token_arithmetic import Job, bills


def plan(
    rows: Annotated[int, typer.Option(min=1, help="How many rows.")],
    prefix_tokens: Annotated[int, typer.Option(min=0, help="Prompt tokens that all rows share.")],
    row_tokens: Annotated[int, typer.Option(min=1, help="Prompt tokens of a row's own.")],
    answer_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 10,
    slots: Annotated[int, typer.Option(min=1, help="Slots that each keep a prefix of their own; shared cache: 1.")] = 1,
    turns: Annotated[int, typer.Option(min=1, help="Turns that a trimmed conversation keeps.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """How many prompt tokens an engine must compute for a job, by the way its rows are sent."""
    found = bills(Job(rows, prefix_tokens, row_tokens, answer_tokens, slots, turns))
    if as_json:
        show.print_json([bill._asdict() for bill in found])
        return
    table = Table("how the rows are sent", box=None, header_style="bold")
    for title in ("tokens to compute", "a row", "times the least", "longest prompt"):
        table.add_column(title, justify="right")
    least = found[0].computed_tokens
    for bill in found:
        tokens = bill.computed_tokens
        cells = f"{tokens:,}", f"{tokens / rows:,.0f}", f"{tokens / least:,.1f}", f"{bill.longest_prompt:,}"
        table.add_row(bill.strategy, *cells)
    show.print_table(table)
