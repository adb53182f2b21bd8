"""What the user chose for the openai_compatible engine: its options and the servers' addresses."""

from __future__ import annotations

import os
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from gristmill.engines.openai_compatible.body_fields import BodyField, body_field, is_body_option
from gristmill.engines.options import parse_options
from gristmill.http_values import shown
from gristmill.user_error import UserError

_EXAMPLE = "http://127.0.0.1:8000"


class _PlainOptions(msgspec.Struct, frozen=True):
    #: Name of the environment variable that holds the servers' bearer key. The key itself is never an option: options
    #: stand in process lists and configuration files.
    api_key_env: str = ""
    #: Requests in flight to each server; 0 asks the server, and finds out by trying where it does not tell.
    parallel: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    #: Seconds a server may take to load its model before the first row.
    start_timeout: Annotated[float, msgspec.Meta(gt=0)] = 600.0


class OpenAICompatibleOptions(_PlainOptions, frozen=True):
    #: What every request's body gets, see ``body_fields``.
    body_fields: tuple[BodyField, ...] = ()

    @staticmethod
    def parse(options: dict[str, str]) -> OpenAICompatibleOptions:
        fields = tuple(body_field(name, value) for name, value in options.items() if is_body_option(name))
        others = {name: value for name, value in options.items() if not is_body_option(name)}
        plain = parse_options(_PlainOptions, others, "openai_compatible", ("body.NAME", "default_body.NAME"))
        return OpenAICompatibleOptions(plain.api_key_env, plain.parallel, plain.start_timeout, fields)

    def headers(self) -> dict[str, str]:
        """Raises UserError where the environment does not hold the key."""
        if not self.api_key_env:
            return {}
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise UserError(
                f"The environment variable {self.api_key_env} is empty: set it to the server's key, "
                "or leave out the option api_key_env."
            )
        return {"Authorization": f"Bearer {key}"}


def base_urls(given: str | None) -> tuple[str, ...]:
    """The servers' roots, from addresses separated by commas, each with or without /v1 at its end."""
    addresses = [each.strip() for each in (given or "").split(",") if each.strip()]
    if not addresses:
        raise UserError(
            f"Say where the server is, with --url {_EXAMPLE}; several servers of one model are separated by commas."
        )
    urls = tuple(map(_base_url, addresses))
    if len(set(urls)) < len(urls):
        raise UserError(f"--url names a server twice: {', '.join(map(shown, urls))}.")
    return urls


def _base_url(address: str) -> str:
    address = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"'{shown(address)}' is not the address of a server: write it like {_EXAMPLE}.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"
