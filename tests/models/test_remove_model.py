from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Run

from gristmill.models.locate import find_pulled
from gristmill.models.pull import pull
from gristmill.models.receipt import receipts_in
from gristmill.models.remove import find_removable, remove
from gristmill.user_error import UserError


@pytest.fixture
def mine(cache: Path, tmp_path: Path, gguf_bytes: bytes) -> Path:
    """The original of a model that has been pulled as ``mine``."""
    original = tmp_path / "mine.gguf"
    original.write_bytes(gguf_bytes)
    pull(str(original))
    return original


def test_a_model_goes_with_all_that_was_pulled_and_the_original_stays(models: Run, mine: Path, cache: Path) -> None:
    size = mine.stat().st_size
    done = models("rm", "mine", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Removed mine: ") and f"{round(size / 1000)} kB freed" in done.stdout
    assert find_pulled("mine") is None and mine.exists()
    assert [path.name for path in (cache / "models" / "imported" / "mine").iterdir()] == [".lock"]
    pull(str(mine))
    assert find_pulled("mine") is not None


def test_nothing_is_removed_unasked(models: Run, mine: Path) -> None:
    done = models("rm", "mine")
    assert done.returncode == 2 and "free" in done.stderr and "--yes" in done.stderr
    assert find_pulled("mine") is not None


def test_what_was_not_pulled_is_a_sentence(models: Run, mine: Path) -> None:
    assert "No model 'other' has been pulled. Pulled models: mine." in models("rm", "other", "--yes").stderr
    assert "a file or folder of your own" in models("rm", str(mine), "--yes").stderr
    for name in ("~no-such-user/m.gguf", "a" * 300):
        assert f"No model '{name}' has been pulled." in models("rm", name, "--yes").stderr
    assert mine.exists()


def test_other_files_beside_a_model_stay(mine: Path, cache: Path) -> None:
    notes = cache / "models" / "imported" / "mine" / "notes.txt"
    notes.write_text("my own")
    remove(find_removable("mine"))
    assert notes.read_text() == "my own"


def test_of_a_link_only_the_link_goes(mine: Path, cache: Path, tmp_path: Path) -> None:
    copy = cache / "models" / "imported" / "mine" / "mine.gguf"
    elsewhere = tmp_path / "elsewhere.gguf"
    copy.rename(elsewhere)
    copy.symlink_to(elsewhere)
    removal = find_removable("mine")
    remove(removal)
    assert removal.size == 0 and elsewhere.exists() and not copy.is_symlink()


def test_a_folder_that_is_a_link_out_of_the_cache_is_left_alone(mine: Path, cache: Path, tmp_path: Path) -> None:
    folder = cache / "models" / "imported" / "mine"
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(UserError, match="outside the cache"):
        find_removable("mine")


def test_a_receipt_that_names_files_elsewhere_removes_none_of_them(mine: Path, cache: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = cache / "models" / "imported" / "mine"
    (receipt,) = folder.glob("*.receipt.json")
    content = json.loads(receipt.read_bytes())
    content["files"] += [{"path": str(precious), "size": 4, "sha256": "0"}]
    content["files"] += [{"path": "../../../../precious", "size": 4, "sha256": "0"}]
    receipt.write_text(json.dumps(content))
    remove(find_removable("mine"))
    assert precious.read_text() == "mine" and not receipts_in(folder)


def test_files_of_two_models_in_one_folder_go_with_the_last(mine: Path, cache: Path) -> None:
    folder = cache / "models" / "imported" / "mine"
    (receipt,) = folder.glob("*.receipt.json")
    content = json.loads(receipt.read_bytes())
    (folder / "other.gguf").write_bytes(b"other")
    content |= {"main": "other.gguf"}
    content["files"] += [{"path": "other.gguf", "size": 5, "sha256": "0"}]
    (folder / "other.gguf.receipt.json").write_text(json.dumps(content))
    first = find_removable("mine")
    assert first.pulled.receipt.main == "mine.gguf" and first.files == []
    remove(first)
    assert (folder / "mine.gguf").exists()
    remove(find_removable("mine"))
    assert not (folder / "mine.gguf").exists() and not (folder / "other.gguf").exists()
