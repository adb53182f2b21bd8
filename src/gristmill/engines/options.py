"""Engine options given as ``key=value`` text, turned into a typed struct or a clear error."""

from __future__ import annotations

from typing import Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from gristmill.user_error import UserError

T = TypeVar("T", bound=msgspec.Struct)


def parse_options(kind: type[T], options: dict[str, str], engine: str, others: tuple[str, ...] = ()) -> T:
    """``kind`` lists the options with their types and defaults; text is converted ("0.5", "true", "8"). ``others`` are
    named besides where an option is not known."""
    known = kind.__struct_fields__
    for key in options:
        if key not in known:
            raise UserError(
                f"The {engine} engine has no option '{key}'. Its options are: {', '.join((*known, *others))}."
            )
    for name, hint in get_type_hints(kind).items():
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        if choices and name in options and options[name] not in choices:
            raise UserError(
                f"The {engine} engine's option '{name}' must be one of {', '.join(choices)}, not '{options[name]}'."
            )
        if hint is bool and name in options and options[name].lower() not in ("true", "false", "1", "0"):
            raise UserError(f"The {engine} engine's option '{name}' must be true or false, not '{options[name]}'.")
    try:
        return msgspec.convert(options, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UserError(f"An option of the {engine} engine is not valid: {error}.") from None
