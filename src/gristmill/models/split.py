"""GGUF models that are split into several files, ``NAME-00001-of-00003.gguf`` and so on, as llama.cpp's gguf-split
writes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from gristmill.user_error import UserError

_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


class SplitName(NamedTuple):
    """What the name of one of the files says; ``number`` counts from 1."""

    stem: str
    number: int
    files: int

    @property
    def names(self) -> list[str]:
        """Of all the files, in order."""
        return [f"{self.stem}-{number:05}-of-{self.files:05}.gguf" for number in range(1, self.files + 1)]


def split_name(name: str) -> SplitName | None:
    """None for a name, or path, of a file that holds its model whole."""
    found = _SPLIT.fullmatch(name)
    if found is None or not 1 <= int(found["number"]) <= int(found["count"]):
        return None
    return SplitName(found["stem"], int(found["number"]), int(found["count"]))


def gguf_files(path: Path) -> list[Path]:
    """The files of the model that ``path`` is, or is one of, in order. They are not looked at."""
    split = split_name(path.name)
    return [path] if split is None else [path.with_name(name) for name in split.names]


def first_file(path: Path) -> Path:
    """What llama.cpp opens. Raises UserError where one of the files is not there."""
    files = gguf_files(path)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"The model '{path}' is split into {len(files)} files, and beside it there is no {missing[0]}{more}: "
            "bring all of them into one folder."
        )
    return files[0]
