from __future__ import annotations

from pathlib import Path

import pytest
from somebody_else import opened_to_all, somebody_else

from gristmill.models.cache import cache_folder
from gristmill.models.locate import locate
from gristmill.user_error import UserError


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GRISTMILL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "gristmill"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "gristmill"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "gristmill"
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_a_gguf_file_is_found_by_its_path(cache: Path, tmp_path: Path, gguf_bytes: bytes) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf_bytes)
    model = locate(str(path))
    assert (model.name, model.path, model.kind) == ("tiny", path, "gguf")


def test_an_ir_folder_is_found_by_its_path(cache: Path, tmp_path: Path, ir_files: dict[str, bytes]) -> None:
    folder = tmp_path / "tiny-ir"
    folder.mkdir()
    for name, content in ir_files.items():
        (folder / name).write_bytes(content)
    model = locate(str(folder))
    assert (model.name, model.path, model.kind) == ("tiny-ir", folder, "ir")


@pytest.mark.parametrize("kept", [4, 20, 300, 3000, -1])
def test_a_truncated_gguf_file_is_an_error_at_any_length(
    cache: Path, tmp_path: Path, gguf_bytes: bytes, kept: int
) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(gguf_bytes[:kept])
    with pytest.raises(UserError, match="damaged or cut short"):
        locate(str(path))


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 a zip"])
def test_a_file_that_is_not_gguf_is_an_error(cache: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wrong.gguf"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a GGUF file"):
        locate(str(path))


@pytest.mark.parametrize("missing", ["openvino_model.bin", "openvino_tokenizer.xml", "openvino_detokenizer.bin"])
def test_an_incomplete_ir_folder_is_an_error_naming_what_is_missing(
    cache: Path, tmp_path: Path, ir_files: dict[str, bytes], missing: str
) -> None:
    for name, content in ir_files.items():
        if name != missing:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=missing):
        locate(str(tmp_path))


@pytest.mark.parametrize(("name", "content"), [("openvino_model.bin", b"12"), ("openvino_model.xml", b"<net><da")])
def test_a_truncated_ir_file_is_an_error(
    cache: Path, tmp_path: Path, ir_files: dict[str, bytes], name: str, content: bytes
) -> None:
    for file, whole in {**ir_files, name: content}.items():
        (tmp_path / file).write_bytes(whole)
    with pytest.raises(UserError, match="cut short"):
        locate(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("smollm2-135m-instruct", "gristmill models pull smollm2-135m-instruct"),
        ("mill/grist", "gristmill models pull mill/grist"),
        ("mill/grist:a.gguf", "gristmill models pull mill/grist:a.gguf"),
        ("no-such-name", "gristmill models list"),
        ("./no-such.gguf", "There is no file or folder"),
        ("../../etc/../x", "There is no file or folder"),
        ("~no-such-user/x.gguf", "There is no file or folder"),
        ("./" + "a" * 300, "cannot be read (File name too long)"),
        ("a" * 300, "cannot be read (File name too long)"),
    ],
)
def test_a_model_that_is_not_here_is_one_sentence_with_what_to_do(cache: Path, name: str, advice: str) -> None:
    with pytest.raises(UserError) as caught:
        locate(name)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_or_folder_that_may_not_be_read_is_one_sentence(
    cache: Path, tmp_path: Path, gguf_bytes: bytes, ir_files: dict[str, bytes]
) -> None:
    folder = tmp_path / "ir"
    folder.mkdir()
    for name, content in {**ir_files, "tiny.gguf": gguf_bytes}.items():
        (folder / name).write_bytes(content)
    opened_to_all(tmp_path)
    folder.chmod(0)
    try:
        with somebody_else():
            for path in (folder, folder / "tiny.gguf"):
                with pytest.raises(UserError, match=rf"'{path}' cannot be read \(Permission denied\)"):
                    locate(str(path))
    finally:
        folder.chmod(0o755)
