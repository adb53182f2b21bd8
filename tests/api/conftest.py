from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest
from contract import checked_client

from server_process import ServerProcess


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with checked_client(server.base_url) as checked:
        yield checked


@pytest.fixture(scope="module")
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    """For what the official client cannot be made to send."""
    with httpx.Client(base_url=server.base_url, timeout=60) as plain:
        yield plain
