"""Engine options given as ``key=value`` text, turned into a typed struct or a clear error."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from gristmill.user_error import UserError

T = TypeVar("T", bound=msgspec.Struct)


def parse_options(kind: type[T], options: dict[str, str], engine: str) -> T:
    """``kind`` lists the options with their types and defaults; text is converted ("0.5", "true", "8")."""
    known = kind.__struct_fields__
    for key in options:
        if key not in known:
            raise UserError(f"The {engine} engine has no option '{key}'. Its options are: {', '.join(known)}.")
    try:
        return msgspec.convert(options, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(f"A {engine} engine option is not valid: {error}.") from None
