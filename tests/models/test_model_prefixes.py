"""``gristmill models prefixes``, and what removing a model does to those of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Run

from gristmill.engines.embedded.prefix_files.prefix_folder import prefix_files, prefixes_folder
from gristmill.engines.embedded.prefix_files.prefix_store import PrefixStore
from gristmill.models.progress import human_size
from gristmill.models.pull import pull
from gristmill.models.receipt import Pulled


def keep(model: str, made_by: str, tokens: list[int]) -> None:
    store = PrefixStore(prefixes_folder(), made_by, model, 2**30, print)
    assert store.save(tokens, 256, [b"state" * len(tokens)])


@pytest.fixture
def mine(cache: Path, tmp_path: Path, gguf_bytes: bytes) -> Pulled:
    original = tmp_path / "mine.gguf"
    original.write_bytes(gguf_bytes)
    pulled = pull(str(original))
    keep("mine", f"openvino f16 mine.gguf={pulled.receipt.files[0].sha256}; OpenVINO", [1] * 100)
    keep("mine", f"llama_cpp mine.gguf={pulled.receipt.files[0].sha256}; b11549", [2] * 1675)
    keep("other", "openvino f16 other.gguf=0123; OpenVINO", [3] * 50)
    return pulled


def test_they_are_listed_by_last_use(models: Run, mine: Pulled) -> None:
    done = models("prefixes")
    assert done.returncode == 0
    assert [line.split()[:3] for line in done.stdout.splitlines()[1:]] == [
        ["other", "openvino", "50"],
        ["mine", "llama_cpp", "1,675"],
        ["mine", "openvino", "100"],
    ]
    assert "3 prefixes" in done.stderr
    found = json.loads(models("prefixes", "--json", "--model", "mine").stdout)
    assert [(each["model"], each["tokens"]) for each in found] == [("mine", 1675), ("mine", 100)]


def test_none_is_a_sentence(models: Run, cache: Path) -> None:
    assert str(cache / "prefixes") in models("prefixes").stderr
    assert json.loads(models("prefixes", "--json").stdout) == []
    assert "Removed 0 prefixes" in models("prefixes", "--clear").stdout


def test_nothing_is_cleared_unasked(models: Run, mine: Pulled) -> None:
    done = models("prefixes", "--clear")
    assert done.returncode == 2 and "--yes" in done.stderr
    assert len(prefix_files(prefixes_folder())) == 3


def test_those_of_one_model_or_all_are_cleared_with_what_a_killed_process_left(models: Run, mine: Pulled) -> None:
    begun = prefixes_folder() / ".writing-1"
    begun.write_bytes(b"half")
    done = models("prefixes", "--clear", "--model", "mine", "--yes")
    assert done.returncode == 0 and "Removed 2 prefixes" in done.stdout
    assert len(prefix_files(prefixes_folder())) == 1 and not begun.exists()
    assert "Removed 1 prefix:" in models("prefixes", "--clear", "--yes").stdout
    assert prefix_files(prefixes_folder()) == []


def test_damaged_ones_are_shown_and_cleared(models: Run, mine: Pulled) -> None:
    path = prefix_files(prefixes_folder())[0].path
    path.write_bytes(b"\x1b[31mdamaged")
    done = models("prefixes")
    assert done.returncode == 0 and "(damaged)" in done.stdout and "\x1b" not in done.stdout
    models("prefixes", "--clear", "--yes")
    assert prefix_files(prefixes_folder()) == []


def test_a_removed_model_takes_its_prefixes_along(models: Run, mine: Pulled) -> None:
    kept = [each.size for each in prefix_files(prefixes_folder()) if b"mine" in each.path.read_bytes()]
    done = models("rm", "mine", "--yes")
    freed = sum(file.size for file in mine.receipt.files) + sum(kept)
    assert len(kept) == 2 and done.stdout == f"Removed mine: {human_size(freed)} freed.\n"
    (left,) = prefix_files(prefixes_folder())
    assert b"other" in left.path.read_bytes()
