"""Which of a hub repository's files make one model: decided from their names and sizes alone."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from gristmill.models.ir_folder import EMBEDDING_FILES, MODEL_FILE, POOLING_FILE, REQUIRED_FILES, is_ir_file
from gristmill.models.progress import human_size
from gristmill.models.split import split_name
from gristmill.user_error import UserError

_SHOWN = 12


class HubFile(NamedTuple):
    """``size`` in bytes; ``sha256`` of a large file, ``blob_id`` (git's) of a small one, None when not
    told."""

    path: str
    size: int
    sha256: str | None = None
    blob_id: str | None = None


class HubChoice(NamedTuple):
    """``main`` is the GGUF file, of several the first, or the openvino_model.xml among ``files``."""

    kind: Literal["gguf", "ir"]
    main: str
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def names(self) -> list[str]:
        """What it can be called by."""
        return [file.path for file in self.files] if self.kind == "gguf" else [self.main]


def choose(repo: str, files: list[HubFile], wanted: str | None) -> HubChoice:
    """The one model ``repo`` holds, or the one that has the file ``wanted`` (a path, or its last part).

    Raises UserError when there is none, or several and none is named.
    """
    choices = _choices(files)
    if wanted is not None:
        named = [choice for choice in choices if wanted in choice.names()]
        choices_left = named or [
            choice for choice in choices if wanted in {PurePosixPath(name).name for name in choice.names()}
        ]
        if not choices_left:
            held = f"its models are {_list(choices)}" if choices else _nothing_usable(files)
            raise UserError(f"The repository '{repo}' has no usable model file '{wanted}': {held}.")
    else:
        choices_left = choices
    if not choices_left:
        raise UserError(f"The repository '{repo}' holds no model for the embedded engine: {_nothing_usable(files)}.")
    if len(choices_left) > 1:
        raise UserError(
            f"The repository '{repo}' holds {len(choices_left)} models: {_list(choices_left)}. Name one, "
            f"for example: gristmill models pull {repo}:{choices_left[0].main}"
        )
    return choices_left[0]


def _choices(files: list[HubFile]) -> list[HubChoice]:
    by_path = {file.path: file for file in files}
    choices = []
    for file in files:
        if not file.path.lower().endswith(".gguf") or _is_projector(file.path):
            continue
        split = split_name(file.path)
        if split is None:
            choices.append(HubChoice("gguf", file.path, (file,)))
        elif split.number == 1 and by_path.keys() >= set(split.names):
            choices.append(HubChoice("gguf", file.path, tuple(by_path[name] for name in split.names)))
    for file in files:
        path = PurePosixPath(file.path)
        if path.name == MODEL_FILE:
            beside = [other for other in files if PurePosixPath(other.path).parent == path.parent]
            names = {PurePosixPath(other.path).name for other in beside}
            if names.issuperset(REQUIRED_FILES) or names.issuperset(EMBEDDING_FILES):
                pooling = by_path.get(str(path.parent / POOLING_FILE))
                kept = tuple(other for other in beside if is_ir_file(PurePosixPath(other.path).name))
                kept += (pooling,) if pooling else ()
                choices.append(HubChoice("ir", file.path, kept))
    return sorted(choices, key=lambda choice: choice.size)


def _is_projector(path: str) -> bool:
    """The picture half of a model that also reads pictures: not a language model by itself."""
    return PurePosixPath(path).name.lower().startswith("mmproj")


def _nothing_usable(files: list[HubFile]) -> str:
    if any(split_name(file.path) for file in files):
        return "of a GGUF model that is split into several files, not all are there"
    if any(PurePosixPath(file.path).name == MODEL_FILE for file in files):
        return "its OpenVINO IR has no tokenizer and detokenizer"
    return "it has neither a GGUF file nor an OpenVINO IR, so look for a repository of the model that has"


def _list(choices: list[HubChoice]) -> str:
    shown = [f"{choice.main} ({human_size(choice.size)})" for choice in choices[:_SHOWN]]
    if len(choices) > _SHOWN:
        shown.append(f"and {len(choices) - _SHOWN} more")
    return ", ".join(shown)
