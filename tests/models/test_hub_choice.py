from __future__ import annotations

import pytest

from gristmill.models.hub_choice import HubFile, choose
from gristmill.models.ir_folder import EMBEDDING_FILES, POOLING_FILE, REQUIRED_FILES
from gristmill.user_error import UserError

IR = [HubFile(name, 10) for name in REQUIRED_FILES]
OTHERS = [HubFile("README.md", 1), HubFile("model.safetensors", 10**9), HubFile("pytorch_model.bin", 10**9)]


def test_the_only_gguf_file_is_chosen() -> None:
    choice = choose("a/b", [*OTHERS, HubFile("x/m.gguf", 7)], None)
    assert (choice.kind, choice.main, choice.size) == ("gguf", "x/m.gguf", 7)


def test_an_ir_is_chosen_whole_and_without_the_original_weights() -> None:
    choice = choose("a/b", [*OTHERS, *IR, HubFile("config.json", 2)], None)
    assert choice.kind == "ir"
    assert {file.path for file in choice.files} == {*REQUIRED_FILES, "config.json"}


def test_an_ir_that_embeds_needs_its_tokenizer_and_brings_how_it_pools() -> None:
    files = [HubFile(name, 10) for name in (*EMBEDDING_FILES, POOLING_FILE, "modules.json", "2_Dense/config.json")]
    choice = choose("a/b", [*OTHERS, *files], None)
    assert {file.path for file in choice.files} == {*EMBEDDING_FILES, POOLING_FILE, "modules.json"}


def test_of_several_one_must_be_named() -> None:
    files = [HubFile("m.Q8_0.gguf", 2_000_000), HubFile("m.Q4_0.gguf", 1_000_000)]
    with pytest.raises(UserError, match=r"m\.Q4_0\.gguf \(1 MB\), m\.Q8_0\.gguf \(2 MB\).*a/b:m\.Q4_0\.gguf"):
        choose("a/b", files, None)
    assert choose("a/b", files, "m.Q8_0.gguf").main == "m.Q8_0.gguf"


def test_a_file_in_a_folder_can_be_named_by_its_last_part() -> None:
    assert choose("a/b", [HubFile("q/m.gguf", 1), HubFile("n.gguf", 1)], "m.gguf").main == "q/m.gguf"


def test_a_split_model_is_one_choice_with_all_of_its_files() -> None:
    parts = [HubFile(f"q/m-0000{number}-of-00003.gguf", number) for number in (2, 1, 3)]
    files = [*parts, HubFile("n.gguf", 1), HubFile("q/other-00001-of-00002.gguf", 1)]
    for wanted in ("q/m-00001-of-00003.gguf", "m-00001-of-00003.gguf", "m-00002-of-00003.gguf"):
        choice = choose("a/b", files, wanted)
        assert (choice.main, choice.size) == ("q/m-00001-of-00003.gguf", 6)
        assert [file.size for file in choice.files] == [1, 2, 3]
    with pytest.raises(UserError, match="holds 2 models: n.gguf"):
        choose("a/b", files, None)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (OTHERS, "neither a GGUF file nor an OpenVINO IR"),
        ([HubFile("m-00001-of-00002.gguf", 1)], "split into several files, not all are there"),
        ([HubFile("m-00002-of-00002.gguf", 1)], "split into several files, not all are there"),
        (IR[:2], "no tokenizer and detokenizer"),
        ([HubFile("mmproj-m.gguf", 1)], "neither a GGUF file"),
    ],
)
def test_a_repository_without_a_usable_model_is_refused_with_the_reason(files: list[HubFile], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        choose("a/b", files, None)


def test_a_named_file_that_is_not_there_is_an_error_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"no usable model file 'x\.gguf': its models are m\.gguf"):
        choose("a/b", [HubFile("m.gguf", 1)], "x.gguf")
