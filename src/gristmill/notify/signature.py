"""Signing what is sent, per Standard Webhooks (https://www.standardwebhooks.com), as OpenAI does."""

from __future__ import annotations

import base64
import binascii
import secrets
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

PREFIX = "whsec_"
#: Of the secret behind the prefix, decoded: what the standard asks for.
_BYTES = (24, 64)


class BadSecret(Exception):
    """In a sentence, without the secret."""


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(secret: str) -> str:
    """Raises BadSecret."""
    try:
        if not secret.startswith(PREFIX):
            raise ValueError
        size = len(base64.b64decode(secret.removeprefix(PREFIX), validate=True))
        if not _BYTES[0] <= size <= _BYTES[1]:
            raise ValueError
    except (ValueError, binascii.Error):
        raise BadSecret(
            f"a secret is '{PREFIX}' and the base64 of {_BYTES[0]} to {_BYTES[1]} random bytes. "
            "'gristmill webhooks secret' makes one."
        ) from None
    return secret


def signed_headers(secret: str, event_id: str, body: str, now: float) -> dict[str, str]:
    """``now`` in Unix seconds: receivers refuse what was signed more than five minutes ago, so each attempt is signed
    anew."""
    signed_at = datetime.fromtimestamp(int(now), UTC)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": Webhook(secret).sign(event_id, signed_at, body),
    }
