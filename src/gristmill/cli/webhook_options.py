"""The options of commands that say whom the end of a batch is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from gristmill.cli import show
from gristmill.user_error import UserError
from gristmill.wire.webhooks import WebhookRequest

if TYPE_CHECKING:
    # Imported where it is used, so that the commands that only ask a server start in half the time.
    from gristmill.notify.webhooks import WebhookSettings

SECRET_VARIABLE = "GRISTMILL_WEBHOOK_SECRET"

OwnUrl = Annotated[
    str | None,
    typer.Option("--webhook", envvar="GRISTMILL_WEBHOOK", metavar="URL", help="Told when any batch ends."),
]
BatchUrl = Annotated[str | None, typer.Option("--webhook", metavar="URL", help="Told when the batch ends.")]
RunUrl = Annotated[str | None, typer.Option("--webhook", metavar="URL", help="Told when the run ends.")]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--webhook-secret-file",
        envvar="GRISTMILL_WEBHOOK_SECRET_FILE",
        help=f"Holds the secret that signs what is sent, whsec_...; or set {SECRET_VARIABLE}.",
    ),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-webhook-host",
        envvar="GRISTMILL_ALLOW_WEBHOOK_HOST",
        metavar="HOST",
        help="Where webhooks may go besides the public internet: a name, an address (both also with :PORT), a network "
        "such as 10.0.0.0/8; *: anywhere.",
    ),
]


class ToTell(NamedTuple):
    """``new_secret`` was made here, because none was given."""

    request: WebhookRequest | None
    new_secret: str | None = None

    def show_new_secret(self) -> None:
        """On standard error, once."""
        if self.new_secret is not None:
            show.console.print(f"The webhook's secret, shown only now: {self.new_secret}")


def settings(url: str | None, secret_file: Path | None, allowed: list[str] | None) -> WebhookSettings:
    """Of a server, or of a run."""
    from gristmill.notify.webhooks import WebhookSettings

    return WebhookSettings(url, secret(secret_file) if url else None, allowed or ())


def of_batch(url: str | None, secret_file: Path | None) -> ToTell:
    """For the request that creates a batch."""
    from gristmill.notify.signature import new_secret

    if url is None:
        return ToTell(None)
    given = secret(secret_file)
    made = None if given else new_secret()
    return ToTell(WebhookRequest(url, given or made), made)


def secret(file: Path | None) -> str | None:
    """From the file, if there is one, else from the environment. Raises UserError."""
    if file is None:
        return os.environ.get(SECRET_VARIABLE, "").strip() or None
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UserError(f"The webhook's secret cannot be read from {file}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} holds no secret of a webhook: that is one line, whsec_...") from None
