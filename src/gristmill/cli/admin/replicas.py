"""``gristmill admin replicas``."""

from __future__ import annotations

from typing import Annotated

import typer

from gristmill.cli import show
from gristmill.cli.batches import AsJson
from gristmill.printable import printable


def replicas(
    ray_address: Annotated[
        str, typer.Option(envvar="GRISTMILL_RAY_ADDRESS", help="HOST:PORT of the cluster's head; auto: this machine's.")
    ] = "auto",
    stop: Annotated[bool, typer.Option(help="End them all, whoever uses them.")] = False,
    as_json: AsJson = False,
) -> None:
    """The replicas of --engine ray on a cluster, and how many commands and servers use each."""
    from gristmill.engines.ray.look import look

    found = look(ray_address, stop).replicas
    if as_json:
        show.print_json({"replicas": found, "ended": stop})
        return
    for each in found:
        users = "does not answer; it may wait for a place" if each.users is None else f"users: {each.users}"
        show.print_text(f"{printable(each.name)}  {users}")
    if not found:
        show.console.print("There are no replicas.")
    elif stop:
        show.console.print(f"Ended: {len(found):,}.")
