"""A scored table's receipt, and scoring rows of it again: on the simulated engine, as a user does it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from gristmill.engines.registry import EngineSettings, create_engine
from gristmill.scoring.computation import Computation, computation_here, computation_there
from gristmill.scoring.outcome import Outcome
from gristmill.scoring.receipt import ScoreReceipt, read_receipt
from gristmill.scoring.receipt_trust import computer_named, table_named
from gristmill.scoring.verify import Apart, Verdict, Verification, same, setup_differences
from gristmill.user_error import UserError

RUBRIC = "Score the miller. Braces {% raw %}{{ like these }}{% endraw %} are meant.\n"


def gristmill(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gristmill", "score", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"HOME": str(folder)}, check=False
    )


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    (folder / "rubric.md").write_text(RUBRIC)
    rows = [f"{i:03},{'=' if i % 2 else ''}Miller {i}" for i in range(60)]
    (folder / "table.csv").write_text("\n".join(["id,name", *rows]) + "\n")
    (folder / "examples.csv").write_text("id,name,craft,honesty\nx,Master,10,9\n")
    asked = ("--rubric", "rubric.md", "--id", "id", "--scale", "0..10", "--criteria", "craft,honesty")
    done = gristmill(
        folder, "table.csv", *asked, "--examples", "examples.csv", "--engine", "simulated", "-o", "out.csv"
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(scored, tmp_path) -> Path:
    """Moved elsewhere, with its receipt, and without what went into it."""
    for name in ("table.csv", "out.csv", "out.csv.receipt.json"):
        (tmp_path / name).write_bytes((scored / name).read_bytes())
    return tmp_path


def test_a_receipt_says_what_the_scores_came_from(scored):
    receipt = json.loads((scored / "out.csv.receipt.json").read_text())
    (computed,) = receipt["computed"]
    assert computed["engine"] == computed["model"] == "simulated"
    assert receipt["asked"]["method"] == "labels" and receipt["asked"]["names"] == ["craft", "honesty"]
    assert "Braces {{ like these }} are meant." in receipt["asked"]["rubric"]
    assert receipt["table"] | {"sha256": None} == {"file": "table.csv", "rows": 60, "sha256": None}
    table = pl.read_csv(scored / "out.csv")
    numbers = b"".join(table[name].to_numpy().astype("<f8").tobytes() for name in ("craft", "honesty"))
    assert receipt["scores"]["sha256"] == hashlib.sha256(numbers).hexdigest()


def test_rows_scored_again_are_identical(folder):
    done = gristmill(folder, "--verify", "out.csv.receipt.json", "--rows", "25")
    assert done.returncode == 0, done.stderr
    assert "50 scores of 25 random rows, computed again: identical to the bit." in done.stderr
    assert "differs" not in done.stderr


def test_a_score_that_was_changed_is_found_and_told(folder):
    table = pl.read_csv(folder / "out.csv", infer_schema=False)
    changed = table.with_columns(craft=pl.when(pl.col("id") == "007").then(pl.lit("9.875")).otherwise(pl.col("craft")))
    changed.write_csv(folder / "out.csv")
    done = gristmill(folder, "--verify=out.csv.receipt.json", "--rows", "60", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["verdict"] == "different"
    assert [(each["id"], each["name"], each["then"]) for each in found["apart"]] == [("007", "craft", 9.875)]
    assert found["changed"] == ["The scores in the scored table are not those that it was written with."]


def test_a_change_in_a_row_that_is_not_drawn_is_no_identity(folder):
    """Nor is a score that was replaced, with what it was beside it as if a better model had been asked."""
    table = pl.read_csv(folder / "out.csv", infer_schema=False)
    table.with_columns(craft=pl.lit("9.875"), craft_before=pl.col("craft")).write_csv(folder / "out.csv")
    done = gristmill(folder, "--verify=out.csv.receipt.json", "--rows", "2")
    assert done.returncode == 1 and "craft 9.875 then" in done.stderr
    table.with_columns(craft=pl.when(pl.col("id") == "007").then(pl.lit("9.875")).otherwise("craft")).write_csv(
        folder / "out.csv"
    )
    for _ in range(2):
        done = gristmill(folder, "--verify=out.csv.receipt.json", "--rows", "1")
        assert done.returncode == 1 and "are not those that it was written with" in done.stderr


@pytest.mark.parametrize(
    ("computed", "said"),
    [
        ({"engine": "openai_compatible", "url": "http://198.51.100.7:8000/v1"}, "add --url http://198.51.100.7:8000"),
        ({"engine": "ollama", "url": "http://127.0.0.1:11434,http://198.51.100.7:11434"}, "another machine"),
        ({"engine": None, "url": "http://198.51.100.7:4080/v1"}, "add --server http://198.51.100.7:4080"),
        ({"engine": "simulated", "options": {"journal": "noted"}}, "add -O journal=noted"),
        ({"engine": "llama_cpp", "options": {"threads": "1", "library": "evil.so"}}, "add -O library=evil.so if"),
        ({"engine": "openvino", "source": "evil"}, "none of those pulled here"),
        ({"engine": "llama_cpp", "source": "/tmp/evil.gguf"}, "add --model /tmp/evil.gguf if that is a file"),
        ({"engine": "vllm", "source": "evil/model"}, "which vllm fetches where it is not there"),
        ({"engine": "ollama", "source": "gpt-oss:120b-cloud"}, "asks of other machines"),
        ({"engine": "ollama", "source": "GPT-OSS:120b-Cloud@sha256:0"}, "asks of other machines"),
        # Neither the engine nor the server is known: nothing is chosen by what the file is.
        ({"engine": None, "url": None, "model": "/tmp/evil.gguf"}, "does not say which server"),
        ({"engine": None, "url": " ", "model": "/tmp/evil.gguf"}, "does not say which server"),
        ({"engine": None, "url": ",", "model": "/tmp/evil.gguf"}, "add --server , if"),
        ({"engine": None, "url": "http://127.0.0.1,http://127.0.0.1"}, "add --server http://127.0.0.1,http"),
        ({"engine": "auto", "source": "/tmp/evil.gguf"}, "the engine auto, which is none of llama_cpp, ollama,"),
        ({"engine": "", "source": "/tmp/evil.gguf"}, "which is none of llama_cpp, ollama,"),
        ({"engine": "OpenVINO", "source": "/tmp/evil"}, "the engine OpenVINO, which is none of"),
        ({"engine": "llama_cpp ", "source": "/tmp/evil.gguf"}, "which is none of"),
        # However a file is written.
        *(
            ({"engine": engine, "source": source}, "none of those pulled here")
            for engine in ("llama_cpp", "openvino")
            for source in (
                "evil.gguf", "./evil", "evil/", "../evil", "~/evil.gguf", "evil/evil.gguf", "evil/evil:evil.gguf",
                "file:///tmp/evil.gguf", "file:evil", "hf:evil/model", "hf.co/evil/model", "https://evil/model.gguf",
                " evil", "evil\n", "Ollama:gemma3", " ollama:gemma3", "",
            )
        ),
        ({"engine": "llama_cpp", "source": None}, "smollm2-135m-instruct, which is none of those pulled here"),
        ({"engine": "ray", "source": "evil"}, "which ray fetches"),
        ({"engine": "ray", "options": {"replica_engine": "llama_cpp"}}, "add -O replica_engine=llama_cpp if"),
        ({"engine": "ollama", "url": "http://127.0.0.1\\@198.51.100.7"}, "another machine"),
        ({"engine": "ollama", "url": "http://198.51.100.7\\@127.0.0.1"}, "another machine"),
        ({"engine": "ollama", "url": "http://127.0.0.1#@198.51.100.7"}, "another machine"),
        ({"engine": "ollama", "url": "http://127.0.0.1.nip.io"}, "another machine"),
        ({"engine": "ollama", "url": "198.51.100.7:11434"}, "another machine"),
    ],
)  # fmt: skip
def test_a_receipt_alone_sends_no_row_elsewhere_and_loads_no_model_and_no_code(folder, computed, said, monkeypatch):
    """Nor what lies there under the name that a model of this machine would have."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GRISTMILL_CACHE", str(folder / "cache"))
    for name in ("evil", "smollm2-135m-instruct"):
        (folder / name).mkdir()
    path = folder / "out.csv.receipt.json"
    receipt = changed(path, lambda it: it["computed"][0].update(computed))
    with pytest.raises(UserError) as refused:
        computer_named(receipt, EngineSettings("auto"), None)
    assert said in str(refused.value).replace("\n", " ")


def test_replicas_load_no_default_model_that_is_not_pulled(folder, monkeypatch):
    monkeypatch.setenv("GRISTMILL_CACHE", str(folder / "cache"))
    receipt = changed(folder / "out.csv.receipt.json", lambda it: it["computed"][0].update(engine="ray"))
    given = EngineSettings("auto", options={"replica_engine": "llama_cpp"})
    with pytest.raises(UserError, match="none of those pulled here"):
        computer_named(receipt, given, None)
    given = EngineSettings("auto", options={"replica_engine": "simulated"})
    assert computer_named(receipt, given, None).engine == given._replace(engine="ray")


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> ScoreReceipt:
    receipt = json.loads(path.read_text())
    change(receipt)
    path.write_text(json.dumps(receipt))
    return read_receipt(path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1/v1/", "[::1]:1", "127.0.0.1:1,localhost"])
def test_a_server_of_this_machine_is_asked_however_it_is_written(folder, url):
    here = {"engine": "openai_compatible", "url": url, "source": "m"}
    receipt = changed(folder / "out.csv.receipt.json", lambda it: it["computed"][0].update(here))
    assert computer_named(receipt, EngineSettings("auto"), None).engine == EngineSettings("openai_compatible", "m", url)


def test_what_a_receipt_does_not_do_alone_a_person_may_say(folder):
    path = folder / "out.csv.receipt.json"
    far = {"engine": "openai_compatible", "url": "http://198.51.100.7/v1", "source": "m"}
    receipt = changed(path, lambda it: it["computed"][0].update(far))
    here = EngineSettings("simulated")
    assert computer_named(receipt, here, None) == (EngineSettings("simulated", "m"), None)
    there = EngineSettings("auto", url="http://198.51.100.7/v1")
    assert computer_named(receipt, there, None).engine == there._replace(engine="openai_compatible", model="m")
    # A server calls the model as requests did.
    assert computer_named(receipt, EngineSettings("auto"), "http://box/v1") == (
        EngineSettings("auto", "simulated"), "http://box/v1",
    )  # fmt: skip


def test_files_that_are_not_beside_the_receipt_are_read_only_where_somebody_names_them(folder, tmp_path_factory):
    path, other = folder / "out.csv.receipt.json", tmp_path_factory.mktemp("other")
    (other / "table.csv").write_bytes((folder / "table.csv").read_bytes())
    (other / "out.csv").write_bytes((folder / "out.csv").read_bytes())
    (folder / "link.csv").symlink_to(other / "table.csv")
    up = os.path.relpath(other / "table.csv", folder)
    for named in (str(other / "table.csv"), up, "x/../" + up, "link.csv", "l*.csv"):
        receipt = changed(path, lambda it, named=named: it["table"].update(file=named))
        with pytest.raises(UserError, match="not in the receipt's own folder: name it, behind the receipt"):
            table_named(path, receipt, None)
    # An address by what reads tables: it reads the file without a folder before it.
    there = Path(f"file:{other}")
    (folder / there).mkdir(parents=True)
    (folder / there / "table.csv").write_text((folder / "table.csv").read_text().replace("Miller", "Other"))
    changed(path, lambda it: it["table"].update(file=str(there / "table.csv")))
    done = gristmill(folder, "--verify", path.name)
    assert done.returncode == 1 and "The table is another one" in done.stderr
    changed(path, lambda it: it["scores"].update(file=str(other / "out.csv")))
    done = gristmill(folder, "--verify", path.name, str(other / "table.csv"))
    assert done.returncode == 2 and "name it, with -o, if that" in done.stderr.replace("\n", " ")
    done = gristmill(folder, "--verify", path.name, str(other / "table.csv"), "-o", str(other / "out.csv"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("field", ["values", "names", "labels"])
def test_a_receipt_that_contradicts_itself_is_refused(folder, field):
    """A crash would end with 1, which says that something differs."""
    receipt = json.loads((folder / "out.csv.receipt.json").read_text())
    receipt["asked"][field] = receipt["asked"][field][1:]
    (folder / "out.csv.receipt.json").write_text(json.dumps(receipt))
    done = gristmill(folder, "--verify", "out.csv.receipt.json")
    assert done.returncode == 2 and "do not belong together" in done.stderr and "Traceback" not in done.stderr


def test_another_table_is_told_in_words_and_one_of_another_size_refused(folder):
    (folder / "other.csv").write_text((folder / "table.csv").read_text().replace("Miller 7\n", "Miller 8\n"))
    done = gristmill(folder, "--verify", "out.csv.receipt.json", "other.csv", "--rows", "60")
    assert done.returncode == 1
    assert "2 of 120 scores of 60 random rows" in done.stderr
    assert "The table is another one" in done.stderr
    (folder / "other.csv").write_text("id,name\n1,Miller\n")
    done = gristmill(folder, "--verify", "out.csv.receipt.json", "other.csv")
    assert done.returncode == 2 and "The receipt is of 60 rows, the table has 1" in done.stderr


def test_what_is_no_receipt_is_one_sentence(folder):
    for name, message in (("nothing.json", "cannot be read"), ("table.csv", "is not a receipt of 'gristmill score'")):
        done = gristmill(folder, "--verify", name)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_without_a_receipt_the_rubric_must_be_named(folder):
    done = gristmill(folder, "table.csv", "--engine", "simulated", "-o", "new.csv")
    assert done.returncode == 2 and "--rubric" in done.stderr


def test_of_a_server_only_what_is_known_is_compared():
    then = Computation("openvino", "here", "small", "small", threads=2, fingerprint="one", packages={"python": "3.11"})
    now = computation_there("http://box/v1", "small", "there", False)
    (told,) = (each for each in setup_differences([then], [now]) if not each.startswith("python"))
    assert told == "One of the two was computed by a server that we asked: what computes there is not known."


def test_what_differs_in_the_set_up_is_said_in_words():
    then = Computation("openvino", "here", "small", threads=2, fingerprint="one", packages={"openvino": "2026.4"})
    assert setup_differences([then], [then]) == []
    now = msgspec.structs.replace(then, threads=8, fingerprint="other", packages={"openvino": "2026.5"})
    assert setup_differences([then], [now]) == [
        "The model's files, its defaults, or an option that changes answers are not those of then.",
        "Another number of threads: 2 then, 8 now.",
        "openvino: 2026.4 then, 2026.5 now.",
    ]


async def test_a_password_in_an_address_stands_in_no_receipt():
    two = "http://me:secret@one:8000,https://me:secret@two/v1"
    engine = create_engine(EngineSettings("simulated"))
    here = await computation_here(engine, EngineSettings("openai_compatible", url=two), "m", "here", False)
    there = computation_there("http://me:secret@one:8000/v1", "m", "there", False)
    assert here.url == "http://one:8000,https://two/v1" and there.url == "http://one:8000/v1"
    assert b"secret" not in msgspec.json.encode([here, there])


def test_near_and_different_are_told_apart_and_any_bit_counts():
    then = Outcome("labels", score=4.0, label="4", entropy=1.5, off_scale=0.25)
    assert same(then, then)
    assert not same(then, msgspec.structs.replace(then, entropy=1.5000000000000002))
    assert same(msgspec.structs.replace(then, score=9.0, before=4.0), then)
    for now, verdict in ((4.01, Verdict.NEAR), (4.2, Verdict.DIFFERENT), (None, Verdict.DIFFERENT)):
        assert Verification(1, 1, [Apart(0, "x", "score", 4.0, now)], 0.05, [], []).verdict is verdict
    assert Verification(1, 1, [], 0.05, [], []).verdict is Verdict.IDENTICAL
    assert Verification(1, 1, [], 0.05, [], ["The table is another one."]).verdict is Verdict.DIFFERENT
