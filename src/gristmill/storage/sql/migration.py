"""The version of a database's tables, and the migrations that bring it to this program's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from gristmill.storage.errors import StorageError


class SchemaVersion(NamedTuple):
    """The last migration that a database has had, and the last that this program knows; ``known``: the former, too."""

    database: str | None
    program: str | None
    known: bool

    @property
    def is_current(self) -> bool:
        return self.database == self.program


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def version_of(connection: Connection) -> SchemaVersion:
    """Nothing is changed."""
    scripts = ScriptDirectory.from_config(_config())
    found = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    return SchemaVersion(found, scripts.get_current_head(), found in known)


def upgrade(connection: Connection) -> None:
    """To the last migration that this program knows. Raises StorageError."""
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        if "locate revision" in str(error):
            raise StorageError(
                "A newer version of Gristmill has written it: use that version or a newer one."
            ) from error
        raise
