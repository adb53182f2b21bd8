"""The database's clock, by which leases run out: the same for all processes, whatever their machines say."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction


class clock(GenericFunction[float]):
    """Now, in Unix seconds."""

    type = Float()
    inherit_cache = True


@compiles(clock, "sqlite")
def _of_sqlite(_element: clock, _compiler: SQLCompiler, **_: Any) -> str:
    # A function of ours (``database``): all who use the file are on one machine, whose clock it is.
    return "gristmill_clock()"


@compiles(clock, "postgresql")
def _of_postgresql(_element: clock, _compiler: SQLCompiler, **_: Any) -> str:
    # Not that of the transaction, which may have waited for its turn.
    return "(extract(epoch from clock_timestamp())::float8)"
