"""``gristmill webhooks``: how the ends of batches were told, and telling them again."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from gristmill.cli import show
from gristmill.cli.batches import DEFAULT_SERVER, AsJson, Server
from gristmill.client import Client
from gristmill.printable import printable
from gristmill.user_error import UserError
from gristmill.wire.webhooks import WebhookDelivery

app = typer.Typer(help="Webhooks: who was told that batches have ended.", no_args_is_help=True)

Limit = Annotated[int, typer.Option(min=1, max=100, help="How many to list, newest first.")]
After = Annotated[str | None, typer.Option(help="List only deliveries made before this one.")]
_DEAD = "dead"
_PAGE = 100


@app.command(name="list")
def show_list(
    server: Server = DEFAULT_SERVER,
    limit: Limit = 20,
    after: After = None,
    status: Annotated[str | None, typer.Option(help="List only these: pending, delivered, dead.")] = None,
    batch: Annotated[str | None, typer.Option(metavar="BATCH_ID", help="List only those of a batch.")] = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries of webhooks, newest first."""
    _show_page(Client(server), limit, after, status, batch, as_json)


@app.command()
def dead(server: Server = DEFAULT_SERVER, limit: Limit = 20, after: After = None, as_json: AsJson = False) -> None:
    """List deliveries that were given up."""
    _show_page(Client(server), limit, after, _DEAD, None, as_json)


@app.command()
def resend(
    delivery_ids: Annotated[list[str] | None, typer.Argument(metavar="DELIVERY_ID...")] = None,
    all_dead: Annotated[bool, typer.Option("--dead", help="All that were given up.")] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Send events again, with the same ids."""
    if bool(delivery_ids) == all_dead:
        raise UserError("Name the deliveries to send again, or say --dead for all that were given up.")
    client = Client(server)
    for delivery_id in delivery_ids or _dead_ids(client):
        delivery = client.resend_webhook(delivery_id)
        show.print_text(f"{printable(delivery.id)} is sent again.")


@app.command()
def secret() -> None:
    """Make a secret for signing, and print it."""
    from gristmill.notify.signature import new_secret

    show.print_text(new_secret())


def _dead_ids(client: Client) -> list[str]:
    """All of them, before the first is sent again."""
    ids: list[str] = []
    more = True
    while more:
        page = client.webhook_deliveries(_PAGE, ids[-1] if ids else None, _DEAD)
        ids += [each.id for each in page.data]
        more = page.has_more
    if not ids:
        show.console.print("No delivery was given up.")
    return ids


def _show_page(
    client: Client, limit: int, after: str | None, status: str | None, batch: str | None, as_json: bool
) -> None:
    page = client.webhook_deliveries(limit, after, status, batch)
    if as_json:
        show.print_json(page)
        return
    if not page.data:
        show.console.print("There are no such deliveries.")
        return
    show.print_table(_table(page.data))
    if page.has_more:
        last = printable(page.data[-1].id)
        show.console.print(f"There are more: see them with --limit, or with --after {last}.")


def _table(deliveries: list[WebhookDelivery]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "event", "batch", "status", "attempts", "last attempt", "to", "why"):
        table.add_column(heading, no_wrap=heading not in ("to", "why"))
    for each in deliveries:
        tried = show.local_time(each.last_attempt_at) if each.last_attempt_at else ""
        to = "the server's webhook" if each.url is None else each.url
        cells = (each.id, each.type, each.batch_id, each.status, str(each.attempts), tried, to, each.last_error or "")
        table.add_row(*map(printable, cells))
    return table
