"""Showing plans: token bills, groups, the estimate of a pilot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from gristmill.cli import show
from gristmill.planning.token_arithmetic import Bill
from gristmill.printable import printable
from gristmill.telemetry.progress import duration

if TYPE_CHECKING:
    from gristmill.planning.capacity import Flow
    from gristmill.planning.report import PilotReport, PlanReport
    from gristmill.planning.token_bill import GroupBill

_LISTED_GROUPS = 20


def print_report(report: PlanReport) -> None:
    out = show.out()
    bill = report.tokens
    again = (
        f"; {report.duplicates:,} of them get another row's answer, as they ask the same" if report.duplicates else ""
    )
    out.print(f"{report.rows:,} rows{again}")
    share = bill.computed / max(bill.sent, 1)
    source = printable(report.token_source)
    out.print(f"prompt tokens: {bill.sent:,} sent, {bill.computed:,} to compute ({share:.1%}); {source}")
    if bill.output is None:
        out.print("output tokens: some rows set no limit")
    else:
        out.print(f"output tokens: {'about' if report.pilot else 'at most'} {bill.output:,}")
    if report.cost_avoided is not None:
        out.print(f"at these prices a hosted API would take {report.currency} {report.cost_avoided:,.2f}")
    out.print(f"order: {'as in the file' if report.in_line_order else 'group by group, instead of as in the file'}")
    if report.pilot is not None:
        _print_pilot(report.pilot)
    if report.groups:
        _print_groups(report.groups)


def print_bills(found: Sequence[Bill], rows: int) -> None:
    """What each way to send ``rows`` rows costs, the least first."""
    table = Table("how the rows are sent", box=None, header_style="bold")
    for title in ("tokens to compute", "a row", "times the least", "longest prompt"):
        table.add_column(title, justify="right")
    least = found[0].computed_tokens
    for bill in found:
        tokens = bill.computed_tokens
        cells = f"{tokens:,}", f"{tokens / rows:,.0f}", f"{tokens / least:,.1f}", f"{bill.longest_prompt:,}"
        table.add_row(bill.strategy, *cells)
    show.print_table(table)


def print_scale(found: Sequence[tuple[int, Flow, float]]) -> None:
    """Of each number of replicas: the flow, and how long the job takes, in seconds."""
    table = Table("replicas", box=None, header_style="bold")
    for title in ("rows/s", "time for all rows", "limit", "replicas busy", "servers busy", "database busy"):
        table.add_column(title, justify="right")
    for count, flow, seconds in found:
        busy = (f"{share:.0%}" for share in (flow.replicas, flow.servers, flow.database))
        table.add_row(f"{count:,}", f"{flow.rate:,.0f}", duration(seconds), flow.limit, *busy)
    show.print_table(table)


def _print_pilot(pilot: PilotReport) -> None:
    out = show.out()
    reused = "" if pilot.reused_share is None else f", {pilot.reused_share:.1%} of prompt tokens reused"
    failed = f", {pilot.failed} failed" if pilot.failed else ""
    out.print(f"pilot: {pilot.rows} rows at {pilot.rows_per_second:,} rows/s{reused}{failed}")
    low, seconds, high = map(duration, (pilot.low, pilot.seconds, pilot.high))
    out.print(f"time for all rows, once the model is loaded: {seconds} ({low} to {high}, 90 %)", style="bold")
    out.print(f"before that, one start of the engine: {duration(pilot.start_seconds)}")


def _print_groups(groups: Sequence[GroupBill]) -> None:
    listed = sorted(sorted(range(len(groups)), key=lambda index: -groups[index].saved)[:_LISTED_GROUPS])
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
