from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gristmill.models.catalog import DEFAULT_MODEL
from gristmill.models.locate import locate
from gristmill.user_error import UserError
from isolation import isolate
from postgres_server import MISSING, PostgresServer, programs
from s3_server import S3Server
from server_process import ServerProcess

# Before any test is imported.
_HOME = isolate()
# How long an example takes says something about the machine only.
settings.register_profile("gristmill", deadline=None)
settings.load_profile("gristmill")


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for a module's tests, with a fresh data folder."""
    with ServerProcess(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One for all tests that leave it running."""
    with S3Server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(scope="session")
def pulled_model() -> str:
    """The name of the model these tests use; skips when it is not on this machine."""
    pytest.importorskip("openvino_genai", reason="the extra 'embedded' is not installed")
    try:
        return locate(DEFAULT_MODEL).name
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for a test session; each test makes databases of its own. Skips where it is not installed."""
    found = programs()
    if found is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip(MISSING)
    server = PostgresServer(found)
    try:
        yield server
    finally:
        server.remove()
