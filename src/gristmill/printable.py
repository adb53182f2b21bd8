"""Text from outside (ids, model output, a server's messages) as it may reach a terminal.

Control characters and escape sequences can recolour, move and overwrite what is on the screen, or send it commands;
a newline can begin what looks like a message of ours; overrides of the writing direction show a text in another order
than it has.
"""

from __future__ import annotations

import re

#: CSI sequences as a whole: without their first character the rest would be left behind as litter.
_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")
#: C0 and C1 controls (but tab and newline), overrides and isolates of the writing direction, line and paragraph
#: separators, invisible tags.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\U000e0000-\U000e007f]")
_SPACES = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
#: Halves of a pair that stand alone, as bytes of a file name that are not UTF-8 do: they cannot be encoded.
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def printable(text: object) -> str:
    """On one line, without anything that a terminal would obey."""
    return _UNSAFE.sub("", _SPACES.sub(" ", _encodable(str(text))))


def printable_lines(text: str) -> str:
    """The same, with its newlines and tabs: for texts of several lines of which every part is ``printable``, and for
    those that are shown as they are, such as prompts."""
    return _UNSAFE.sub("", _encodable(text.replace("\r\n", "\n")))


def printable_json(text: str) -> str:
    """JSON that says the same in characters that a terminal does not obey."""
    return _UNSAFE.sub(_escaped, text)


def _encodable(text: str) -> str:
    return _SURROGATES.sub("\ufffd", _SEQUENCE.sub("", text))


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
