"""A model that is split into several files is one model, and whole or an error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import Run
from hub_stand_in import REPO, HubStandIn

from gristmill.models.fingerprint import model_fingerprint
from gristmill.models.locate import locate
from gristmill.models.pull import pull
from gristmill.models.split import split_name
from gristmill.user_error import UserError


@pytest.mark.parametrize(
    "name", ["m.gguf", "m-00000-of-00002.gguf", "m-00003-of-00002.gguf", "m-1-of-2.gguf", "-00001-of-00001.gguf", "m"]
)
def test_other_names_are_no_parts(name: str) -> None:
    assert split_name(name) is None


def test_any_of_its_files_stands_for_the_model(cache: Path, split_gguf: list[Path]) -> None:
    assert [path.name for path in split_gguf] == [f"big-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for path in split_gguf:
        model = locate(str(path))
        assert (model.name, model.path, model.kind) == ("big", split_gguf[0], "gguf")
    assert all(path.name in model_fingerprint(model) for path in split_gguf)


def test_a_file_that_is_missing_cut_short_or_another_is_named(cache: Path, split_gguf: list[Path]) -> None:
    last = split_gguf[2].read_bytes()
    split_gguf[2].write_bytes(last[:-1])
    with pytest.raises(UserError, match="big-00003-of-00003.gguf' is damaged or cut short"):
        locate(str(split_gguf[0]))
    shutil.copy(split_gguf[1], split_gguf[2])
    with pytest.raises(UserError, match="big-00003-of-00003.gguf' is not part 3 of 3"):
        locate(str(split_gguf[0]))
    split_gguf[2].unlink()
    with pytest.raises(UserError, match="split into 3 files, and beside it there is no big-00003-of-00003.gguf:"):
        locate(str(split_gguf[1]))


def test_it_is_imported_shown_and_removed_whole(models: Run, cache: Path, split_gguf: list[Path]) -> None:
    size = sum(path.stat().st_size for path in split_gguf)
    assert models("pull", str(split_gguf[1])).returncode == 0
    shown = json.loads(models("show", "big", "--json").stdout)
    assert (shown["size"], shown["parameters"]) == (size, 128)
    folder = cache / "models" / "imported" / "big"
    assert locate("big").path == folder / split_gguf[0].name
    (folder / split_gguf[1].name).unlink()
    with pytest.raises(UserError, match="damaged or gone"):
        locate("big")
    pull(str(split_gguf[0]))
    assert models("rm", "big", "--yes").returncode == 0
    assert [path.name for path in folder.iterdir()] == [".lock"] and all(path.exists() for path in split_gguf)


def test_it_is_pulled_from_the_hub_with_all_of_its_files(
    hub: HubStandIn, models: Run, cache: Path, split_gguf: list[Path]
) -> None:
    hub.files = {f"Q4/{path.name}": path.read_bytes() for path in split_gguf} | {"mmproj-big.gguf": b"GGUF"}
    done = models("pull", REPO)
    assert done.returncode == 0, done.stderr
    main = f"Q4/{split_gguf[0].name}"
    assert locate(REPO).path == cache / "models" / "hub" / REPO / main
    for name in (main, split_gguf[1].name):
        assert locate(f"{REPO}:{name}").path.name == split_gguf[0].name
    rows = {row["name"]: row for row in json.loads(models("list", "--json").stdout)}
    assert rows[f"{REPO}:{main}"]["size"] == sum(path.stat().st_size for path in split_gguf)
