from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_bert
from gristmill import extras
from gristmill.models.locate import locate
from gristmill.models.pull import pull
from gristmill.user_error import UserError


def test_a_local_gguf_file_is_copied_and_has_a_name(cache: Path, tmp_path: Path, gguf_bytes: bytes) -> None:
    original = tmp_path / "mine.gguf"
    original.write_bytes(gguf_bytes)
    pull(str(original))
    original.unlink()
    assert locate("mine").path.read_bytes() == gguf_bytes
    assert locate("mine").path.is_relative_to(cache)


def test_a_changed_original_replaces_the_copy(cache: Path, tmp_path: Path, gguf_bytes: bytes) -> None:
    original = tmp_path / "mine.gguf"
    original.write_bytes(gguf_bytes)
    pull(str(original))
    original.write_bytes(gguf_bytes + b"\0" * 32)
    pull(str(original))
    assert locate("mine").path.stat().st_size == len(gguf_bytes) + 32


def test_a_local_ir_folder_is_copied_without_what_is_not_the_model(
    cache: Path, tmp_path: Path, ir_files: dict[str, bytes]
) -> None:
    folder = tmp_path / "mine-ir"
    folder.mkdir()
    for name, content in {**ir_files, "model.safetensors": b"x"}.items():
        (folder / name).write_bytes(content)
    pull(str(folder))
    copy = locate("mine-ir")
    assert copy.kind == "ir"
    assert (copy.path / "openvino_model.xml").is_file()
    assert not (copy.path / "model.safetensors").exists()


def test_a_model_is_copied_with_what_belongs_to_it(cache: Path, tmp_path: Path, gguf_bytes: bytes) -> None:
    """A projector beside a GGUF file, and the file that says how an IR folder's vectors are pooled."""
    seeing = tmp_path / "seeing.gguf"
    seeing.write_bytes(gguf_bytes)
    (tmp_path / "mmproj-seeing.gguf").write_bytes(b"GGUF eyes")
    pull(str(seeing))
    projector = locate("seeing").projector
    assert projector is not None and projector.parent == cache / "models" / "imported" / "seeing"
    assert projector.read_bytes() == b"GGUF eyes"
    pytest.importorskip("openvino", reason="the extra 'embedded' is not installed")
    pull(str(tiny_bert.write_ir(tmp_path / "bert")))
    assert (locate("bert").path / "1_Pooling" / "config.json").is_file()


def test_a_name_of_the_catalog_cannot_be_taken(cache: Path, tmp_path: Path, gguf_bytes: bytes) -> None:
    path = tmp_path / "gemma3-270m.gguf"
    path.write_bytes(gguf_bytes)
    with pytest.raises(UserError, match="rename"):
        pull(str(path))


def test_a_copy_that_lost_a_file_is_an_error_with_what_to_do(cache: Path, tmp_path: Path, gguf_bytes: bytes) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(gguf_bytes)
    pull(str(path)).path.unlink()
    with pytest.raises(UserError, match="damaged or gone"):
        locate("mine")


def test_an_unknown_name_to_pull_says_what_can_be_pulled(cache: Path) -> None:
    with pytest.raises(UserError, match=r"smollm2-135m-instruct.*a hub id.*path of a GGUF"):
        pull("no-such-name")


def test_a_missing_optional_package_names_the_extra(cache: Path) -> None:
    with pytest.raises(UserError, match=r"pip install 'gristmill\[embedded\]'"):
        extras.require("no_such_package")


def test_nothing_optional_is_imported_to_list_models(cache: Path) -> None:
    code = (
        "import sys, gristmill.cli.models; from gristmill.models.describe import known_models; known_models();"
        "import json; names = ('gguf', 'huggingface_hub', 'numpy');"
        "print(json.dumps([name for name in names if name in sys.modules]))"
    )
    assert json.loads(subprocess.check_output([sys.executable, "-c", code])) == []
