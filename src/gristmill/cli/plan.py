"""``gristmill plan``: what an input file shares; without a file, the token arithmetic as a calculator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gristmill.cli import jsonl, show
from gristmill.planning.token_arithmetic import Job, bills
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from gristmill.planning.job_plan import JobPlan

_LISTED_GROUPS = 20


def plan(
    input_file: Annotated[
        Path | None, typer.Argument(metavar="[INPUT.jsonl]", help="Requests, one JSON object a line.")
    ] = None,
    defaults: Annotated[
        Path | None, typer.Option(help="JSON object of body parameters for lines that do not set them.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the prefix tree as a page.")] = None,
    prompt_price: Annotated[float, typer.Option(min=0, help="A hosted API's price of a million prompt tokens.")] = 0,
    output_price: Annotated[float, typer.Option(min=0, help="... and of a million output tokens.")] = 0,
    rows: Annotated[int | None, typer.Option(min=1, help="Without INPUT: how many rows.")] = None,
    prefix_tokens: Annotated[int | None, typer.Option(min=0, help="... prompt tokens that all rows share.")] = None,
    row_tokens: Annotated[int | None, typer.Option(min=1, help="... prompt tokens of a row's own.")] = None,
    answer_tokens: Annotated[int, typer.Option(min=1, help="... tokens of an answer.")] = 10,
    slots: Annotated[int, typer.Option(min=1, help="... slots that keep a prefix each; shared cache: 1.")] = 1,
    turns: Annotated[int, typer.Option(min=1, help="... turns that a trimmed conversation keeps.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What the rows of INPUT.jsonl share, in which order they run best, and how many tokens that saves.

    Without INPUT: how many prompt tokens a job costs, by the way its rows are sent.
    """
    if input_file is not None:
        found = _plan_file(input_file, defaults)
        if html is not None:
            _draw(html, input_file, found)
        _show_plan(found, prompt_price, output_price, as_json)
    elif rows is None or prefix_tokens is None or row_tokens is None:
        raise UserError("Name an input file, or give --rows, --prefix-tokens and --row-tokens to do without one.")
    else:
        _calculate(Job(rows, prefix_tokens, row_tokens, answer_tokens, slots, turns), as_json)


def _plan_file(path: Path, defaults: Path | None) -> JobPlan:
    from gristmill.batches.input_plan import Rejected, plan_file
    from gristmill.batches.validation import Limits

    jsonl.check_readable(path)
    try:
        return plan_file(path, jsonl.first_endpoint(path), jsonl.read_defaults(defaults), Limits())
    except Rejected as rejected:
        raise UserError(f"{path} cannot be run:\n{show.errors_text(rejected.errors)}") from None


def _draw(target: Path, input_file: Path, found: JobPlan) -> None:
    from gristmill.planning.picture import page

    try:
        target.write_text(page(input_file.name, found), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from None


def _show_plan(found: JobPlan, prompt_price: float, output_price: float, as_json: bool) -> None:
    from gristmill.planning.token_bill import (
        USUAL_BYTES_PER_TOKEN,
        Prices,
        cost_avoided,
        group_bills,
        token_bill,
    )

    bill, groups = token_bill(found), group_bills(found.groups)
    avoided = cost_avoided(bill, Prices(prompt_price, output_price)) if prompt_price or output_price else None
    duplicates = len(found.duplicates.lines)
    if as_json:
        summary: dict[str, Any] = {
            "rows": found.rows,
            "duplicates": duplicates,
            "tokens": {"source": f"estimated at {USUAL_BYTES_PER_TOKEN:g} bytes a token", **bill._asdict()},
            "prompt_bytes": found.prompt_bytes,
            "computed_bytes": found.computed_bytes,
            "in_line_order": found.in_line_order,
            "cost_avoided": avoided,
            "groups": [group._asdict() for group in groups],
        }
        show.print_json(summary)
        return
    out = show.out()
    again = f", {duplicates:,} of them ask what another row asks and run with it" if duplicates else ""
    out.print(f"{found.rows:,} rows{again}")
    out.print(
        f"prompt tokens: {bill.sent:,} sent, {bill.computed:,} to compute ({bill.computed / max(bill.sent, 1):.1%}), "
        f"estimated at {USUAL_BYTES_PER_TOKEN:g} bytes a token"
    )
    limit = "no limit set by some rows" if bill.output is None else f"at most {bill.output:,}"
    out.print(f"output tokens: {limit}")
    if avoided is not None:
        out.print(f"at these prices a hosted API would take {avoided:,.2f}")
    out.print(f"order: {'as in the file' if found.in_line_order else 'group by group, instead of as in the file'}")
    if groups:
        _print_groups(groups)


def _print_groups(groups: list[Any]) -> None:
    listed = sorted(sorted(range(len(groups)), key=lambda i: -groups[i].saved)[:_LISTED_GROUPS])
    table = Table("group", box=None, header_style="bold")
    for title in ("rows", "shared tokens", "more a row", "tokens saved", "from line"):
        table.add_column(title, justify="right")
    for index in listed:
        group = groups[index]
        numbers = (group.rows, group.shared, round(group.own_per_row), group.saved, group.first_line)
        table.add_row("  " * group.depth + str(index + 1), *(f"{number:,}" for number in numbers))
    show.print_table(table)
    if len(groups) > len(listed):
        show.out().print(f"... and {len(groups) - len(listed):,} groups that save less (--json lists them)")


def _calculate(job: Job, as_json: bool) -> None:
    found = bills(job)
    if as_json:
        show.print_json([bill._asdict() for bill in found])
        return
    table = Table("how the rows are sent", box=None, header_style="bold")
    for title in ("tokens to compute", "a row", "times the least", "longest prompt"):
        table.add_column(title, justify="right")
    least = found[0].computed_tokens
    for bill in found:
        tokens = bill.computed_tokens
        cells = f"{tokens:,}", f"{tokens / job.rows:,.0f}", f"{tokens / least:,.1f}", f"{bill.longest_prompt:,}"
        table.add_row(bill.strategy, *cells)
    show.print_table(table)
