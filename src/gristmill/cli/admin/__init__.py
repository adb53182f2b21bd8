"""``gristmill admin``: looking after a server, on its own machine; one file a command."""

from __future__ import annotations

import typer

from gristmill.cli.admin import audit, backup, check, disk, key, prune, replicas, restore

app = typer.Typer(help="Look after a server's data, while it runs or not.", no_args_is_help=True)
app.command()(audit.audit)
app.command()(backup.backup)
app.command()(restore.restore)
app.command()(check.check)
app.command()(disk.disk)
app.command()(prune.prune)
app.command()(replicas.replicas)
app.add_typer(key.app, name="key")
