"""The command as a user meets it: sentences, exit codes, precedence, JSON."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_command import Done, run_forked

from requests_jsonl import chat_file, chat_line, jsonl
from server_process import ServerProcess


def gristmill(folder: Path, *words: object, **environment: str) -> Done:
    return run_forked(folder, [str(word) for word in words], environment)


def sentence(done: Done, code: int = 2) -> str:
    """The one clear sentence of an error a person can mend."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert done.stderr.startswith("Error: ") and "Traceback" not in done.stderr
    return done.stderr.removeprefix("Error: ").removesuffix("\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.jsonl").write_bytes(chat_file(5))
    return tmp_path


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(
        tmp_path_factory.mktemp("data"), "-O", "fail_on=hopeless", "-O", "failure_kind=invalid_request"
    ) as running:
        yield running


RUN = ("run", "in.jsonl", "-o", "out.jsonl", "--engine", "simulated")
SERVE = ("serve", "--engine", "simulated", "--port", "0")


# gristmill run


def test_run_answers_every_row_and_exits_with_0(folder: Path) -> None:
    done = gristmill(folder, *RUN)
    assert done.returncode == 0 and "5 of 5 rows answered" in done.stderr
    lines = (folder / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == [f"row-{row}" for row in range(5)]
    assert sorted(path.name for path in folder.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_run_exits_with_1_when_rows_failed_and_says_where_they_are(folder: Path) -> None:
    done = gristmill(folder, *RUN, "-O", "fail_on=row-3", "-O", "failure_kind=invalid_request")
    assert done.returncode == 1 and "1 failed" in done.stderr and "out.errors.jsonl" in done.stderr
    assert len((folder / "out.jsonl").read_text().splitlines()) == 4
    (error,) = map(json.loads, (folder / "out.errors.jsonl").read_text().splitlines())
    assert (error["custom_id"], error["response"]["status_code"]) == ("row-3", 400)


def test_run_with_no_row_answered_leaves_an_empty_output(folder: Path) -> None:
    assert gristmill(folder, *RUN, "-O", "fail_on=row", "-O", "failure_kind=invalid_request").returncode == 1
    assert (folder / "out.jsonl").read_bytes() == b""


def test_run_rejects_a_bad_file_with_its_lines_and_leaves_nothing_behind(folder: Path) -> None:
    (folder / "in.jsonl").write_bytes(chat_file(2) + b"notes\n" + jsonl([chat_line("row-0")]))
    message = sentence(gristmill(folder, *RUN))
    assert "in.jsonl was rejected, nothing ran" in message
    assert "line 3: This line is not parseable as valid JSON." in message
    assert "line 4: The custom_id 'row-0'" in message
    assert [path.name for path in folder.iterdir()] == ["in.jsonl"]


def test_run_refuses_an_output_that_exists_unless_told_to_replace_it(folder: Path) -> None:
    (folder / "out.jsonl").write_text("precious")
    assert "exists already" in sentence(gristmill(folder, *RUN)) and "--overwrite" in sentence(gristmill(folder, *RUN))
    assert (folder / "out.jsonl").read_text() == "precious"
    assert gristmill(folder, *RUN, "--overwrite").returncode == 0
    assert (folder / "out.jsonl").read_text() != "precious"


def test_an_errors_file_of_an_earlier_run_does_not_stay_beside_a_clean_one(folder: Path) -> None:
    assert gristmill(folder, *RUN, "-O", "fail_on=row-3", "-O", "failure_kind=invalid_request").returncode == 1
    assert gristmill(folder, *RUN, "--overwrite").returncode == 0
    assert not (folder / "out.errors.jsonl").exists()


def test_defaults_fill_in_what_lines_leave_out_and_never_override_them(folder: Path) -> None:
    lines = [chat_line("without"), chat_line("with", max_tokens=5)]
    del lines[0]["body"]["model"], lines[0]["body"]["max_tokens"]
    (folder / "in.jsonl").write_bytes(jsonl(lines))
    (folder / "defaults.json").write_text('{"model": "simulated", "max_tokens": 2}')
    assert gristmill(folder, *RUN, "--defaults", "defaults.json").returncode == 0
    answers = map(json.loads, (folder / "out.jsonl").read_text().splitlines())
    assert [answer["response"]["body"]["usage"]["completion_tokens"] for answer in answers] == [2, 5]


@pytest.mark.parametrize("text", ["[1]", "max_tokens: 5", "", "\udcff"])
def test_defaults_that_are_no_json_object_are_a_sentence(folder: Path, text: str) -> None:
    (folder / "defaults.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "must hold one JSON object" in sentence(gristmill(folder, *RUN, "--defaults", "defaults.json"))


def interrupted_run(folder: Path) -> None:
    """Leave a run behind that has begun."""
    (folder / "in.jsonl").write_bytes(chat_file(50))
    slow = [
        sys.executable,
        "-m",
        "gristmill",
        *RUN,
        "-O",
        "latency=0.1",
        "-O",
        "slots=1",
        "-O",
        "journal=journal",
    ]
    process = subprocess.Popen(slow, cwd=folder, stderr=subprocess.DEVNULL)
    while process.poll() is None and not ((folder / "journal").exists() and (folder / "journal").stat().st_size):
        pass
    process.kill()
    process.wait()


def test_a_run_whose_input_engine_or_defaults_changed_is_not_resumed(folder: Path) -> None:
    interrupted_run(folder)
    (folder / "defaults.json").write_text('{"user": "me"}')
    assert "The defaults changed" in sentence(gristmill(folder, *RUN, "--defaults", "defaults.json"))
    assert "The model changed" in sentence(gristmill(folder, *RUN, "--model", "other"))
    (folder / "in.jsonl").write_bytes(chat_file(51))
    message = sentence(gristmill(folder, *RUN))
    assert "The input changed" in message and "delete" in message
    assert not (folder / "out.jsonl").exists()


def test_a_mistyped_engine_or_model_does_not_spoil_the_next_try(folder: Path) -> None:
    assert "There is no engine 'simulate'" in sentence(gristmill(folder, *RUN[:-1], "simulate"))
    assert gristmill(folder, *RUN).returncode == 0


def test_two_runs_of_the_same_output_at_once_are_refused(folder: Path) -> None:
    (folder / "in.jsonl").write_bytes(chat_file(50))
    command = [sys.executable, "-m", "gristmill", *RUN, "-O", "latency=0.2", "-O", "slots=1"]
    first = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    try:
        while not (folder / ".out.jsonl.gristmill" / "job.json").exists():
            assert first.poll() is None
        assert f"out.jsonl is being written by another Gristmill (process {first.pid})" in sentence(
            gristmill(folder, *RUN)
        )
    finally:
        first.kill()
        first.wait()


# Errors a person meets


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "none.jsonl", "-o", "out.jsonl"), "There is no file none.jsonl: check the name."),
        (("run", ".", "-o", "out.jsonl"), ". is a folder: name a JSONL file."),
        (("run", "in.jsonl", "-o", "none/out.jsonl"), "There is no folder none for the output: create it first."),
        (("run", "in.jsonl", "-o", "out.jsonl", "--engine", "gpt"), "There is no engine 'gpt'. Choose one of: "),
        ((*RUN, "-O", "speed=1"), "The simulated engine has no option 'speed'. Its options are: slots, "),
        (
            ("run", "in.jsonl", "-o", "out.jsonl", "--engine", "openvino", "-O", "attention=quick"),
            "The openvino engine's option 'attention' must be one of shared, openvino, not 'quick'.",
        ),
        (
            ("run", "in.jsonl", "-o", "out.jsonl", "--engine", "llama_cpp", "-O", "same_bits=on"),
            "The llama_cpp engine's option 'same_bits' must be true or false, not 'on'.",
        ),
        ((*RUN, "-O", "slots=many"), "An option of the simulated engine is not valid: "),
        ((*RUN, "-O", "slots"), "The engine option 'slots' is not KEY=VALUE."),
        ((*RUN, "--alias", "gpt"), "The alias 'gpt' is not NAME=MODEL, such as "),
        ((*RUN, "--alias", "a=x", "--alias", "a=y"), "The alias 'a' is given for two models: x and y."),
        ((*RUN, "--alias", "a=none"), "The alias 'a' stands for 'none', which the engine does not have. It has: simu"),
        ((*RUN, "--log-level", "loud"), "The log level 'loud' is none of debug, info, warning, error."),
        (("--config", "none.toml", *RUN), "The settings file none.toml cannot be read: No such file or directory."),
        ((*SERVE, "--data", "d", "-O", "slots=many"), "An option of the simulated engine is not valid: "),
        ((*SERVE, "--data", "d", "--webhook", "https://example.com"), "A webhook needs a secret"),
        (
            (*SERVE, "--database", "mysql://x", "--data", "d"),
            "The database 'mysql' is not",
        ),
        (
            (*SERVE, "--blobs", "ftp://x", "--data", "d"),
            "The blob store 'ftp://...' is not supported: --blobs takes a folder",
        ),
        ((*SERVE, "--data", "d", "--alias", "simulated=simulated"), "The alias 'simulated' is the name of a model"),
        ((*SERVE, "--data", "in.jsonl"), "The data folder in.jsonl cannot be used"),
        ((*SERVE, "--data", "d", "--host", "no such host"), "Cannot listen on no such host"),
        (("batches", "submit", "none.jsonl"), "There is no file none.jsonl: check the name."),
        (("batches", "list", "--server", "http://"), "'http://' is not a server's URL: write it like http://"),
        (("batches", "list", "--server", "ftp://x/v1"), "'ftp://x/v1' is not a server's URL: write it like http://"),
        (("batches", "submit", "in.jsonl", "--metadata", "x"), "The metadata 'x' is not KEY=VALUE."),
    ],
)
def test_an_error_a_person_can_mend_is_one_sentence_and_exit_code_2(
    folder: Path, words: tuple[str, ...], expected: str
) -> None:
    assert sentence(gristmill(folder, *words)).startswith(expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--host", "192.0.2.1"), "Cannot listen on 192.0.2.1"),
        (("--engine", "openai_compatible", "--url", "http://127.0.0.1:9"), "No server answers at http://127.0.0.1:9"),
    ],
)
def test_a_server_that_may_start_another_time_says_so_by_its_exit_code(
    folder: Path, words: tuple[str, ...], expected: str
) -> None:
    done = gristmill(folder, *SERVE, "--data", "d", *words)
    assert done.returncode == 75 and done.stderr.splitlines()[-1].startswith(f"Error: {expected}"), done.stderr


@pytest.mark.parametrize(
    "words",
    [("run",), ("nonsense",), ("run", "in.jsonl"), ("serve", "--port", "99999"), ("serve", "--port", "x"),
     (*RUN, "--concurrency", "0"), (*RUN, "--request-timeout", "0"), ("batches", "list", "--limit", "0")],
)  # fmt: skip
def test_a_wrong_flag_is_explained_with_exit_code_2(folder: Path, words: tuple[str, ...]) -> None:
    done = gristmill(folder, *words)
    assert done.returncode == 2 and "Usage:" in done.stderr and "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_a_sentence(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = gristmill(folder, "serve", "--engine", "simulated", "--data", "d", "--port", port)
    said = sentence(done, code=75)
    assert said == f"Port {port} is taken by another program: stop it, or choose another port with --port."


def test_a_server_that_is_not_there_is_a_sentence(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    message = sentence(gristmill(folder, "batches", "list", "--server", url))
    assert message.startswith(f"No server answers at {url}") and "gristmill serve" in message


def test_a_url_with_another_path_is_a_sentence_that_says_so(there: ServerProcess, folder: Path) -> None:
    url = there.base_url.removesuffix("/v1") + "/v2"
    assert "check the URL (it usually ends in /v1)" in sentence(gristmill(folder, "batches", "list", "--server", url))


# Settings


@pytest.mark.parametrize(
    "text", ["port = ", "[serve", 'engine = "simulated"', "\udcff"], ids=["cut off", "no table", "outside", "bytes"]
)
def test_a_settings_file_that_is_wrong_is_a_sentence(folder: Path, text: str) -> None:
    (folder / "gristmill.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    message = sentence(gristmill(folder, *RUN))
    assert "gristmill.toml is not valid TOML" in message or "stands outside a table" in message


def test_flags_beat_the_environment_which_beats_the_settings_file(folder: Path) -> None:
    (folder / "gristmill.toml").write_text(
        '[run]\nengine = "from-file"\nmodel = "simulated"\n[run.engine-options]\nfail_on = "row-2"\n'
        'failure-kind = "invalid_request"\n'
    )
    bare = ("run", "in.jsonl", "-o", "out.jsonl")
    assert "no engine 'from-file'" in sentence(gristmill(folder, *bare))
    assert "no engine 'from-env'" in sentence(gristmill(folder, *bare, GRISTMILL_ENGINE="from-env"))
    done = gristmill(folder, *bare, "--engine", "from-flag", GRISTMILL_ENGINE="from-env")
    assert "no engine 'from-flag'" in sentence(done)
    # The engine's options come from the file: one row fails.
    assert gristmill(folder, *bare, GRISTMILL_ENGINE="simulated").returncode == 1
    done = gristmill(folder, *bare, "--engine", "simulated", "--overwrite", GRISTMILL_ENGINE_OPTIONS="slots=2")
    assert done.returncode == 0


def test_a_run_answers_lines_that_ask_by_an_alias_of_the_settings_file(folder: Path) -> None:
    (folder / "in.jsonl").write_bytes(jsonl([chat_line("row", model="gpt-4.1")]))
    assert "does not exist here. This server has: simulated." in sentence(gristmill(folder, *RUN))
    for text in ('[run.aliases]\n"gpt-4.1" = "simulated"\n', '[run]\nalias = ["gpt-4.1=simulated"]\n'):
        (folder / "gristmill.toml").write_text(text)
        assert gristmill(folder, *RUN, "--overwrite").returncode == 0
    assert (
        gristmill(folder, "--config", "/dev/null", *RUN, "--overwrite", GRISTMILL_ALIAS="gpt-4.1=simulated").returncode
        == 0
    )


def test_the_server_of_the_batches_commands_comes_from_the_settings_file_too(
    there: ServerProcess, folder: Path
) -> None:
    (folder / "mine.toml").write_text(f'[batches]\nserver = "{there.base_url}"\n')
    done = gristmill(folder, "--config", "mine.toml", "batches", "list", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["object"] == "list"


# gristmill batches


def test_a_batch_is_submitted_watched_shown_and_downloaded(there: ServerProcess, folder: Path) -> None:
    server = {"GRISTMILL_SERVER": there.base_url}
    (folder / "in.jsonl").write_bytes(jsonl([chat_line("good"), chat_line("bad", "a hopeless case")]))
    submitted = gristmill(folder, "batches", "submit", "in.jsonl", "--metadata", "team=a=b", **server)
    assert submitted.returncode == 0
    batch_id = submitted.stdout.strip()
    watched = gristmill(folder, "batches", "watch", batch_id, **server)
    assert watched.returncode == 1 and "1 of 2 rows answered, 1 failed" in watched.stderr
    shown = json.loads(gristmill(folder, "batches", "show", batch_id, "--json", **server).stdout)
    assert shown["metadata"] == {"team": "a=b"} and shown["status"] == "completed"
    assert batch_id in gristmill(folder, "batches", "show", batch_id, **server).stdout
    listed = json.loads(gristmill(folder, "batches", "list", "--limit", "1", "--json", **server).stdout)
    assert [batch["id"] for batch in listed["data"]] == [batch_id]
    assert batch_id in gristmill(folder, "batches", "list", **server).stdout
    assert gristmill(folder, "batches", "download", batch_id, "-o", "got.jsonl", **server).returncode == 0
    (answer,) = map(json.loads, (folder / "got.jsonl").read_text().splitlines())
    (error,) = map(json.loads, (folder / "got.errors.jsonl").read_text().splitlines())
    assert (answer["custom_id"], error["custom_id"]) == ("good", "bad")
    assert sorted(path.name for path in folder.iterdir()) == ["got.errors.jsonl", "got.jsonl", "in.jsonl"]
    assert "Cannot cancel" in sentence(gristmill(folder, "batches", "cancel", batch_id, **server))


def test_submit_and_watch_in_one_exits_with_0_when_all_is_well(there: ServerProcess, folder: Path) -> None:
    words = ("batches", "submit", "in.jsonl", "--watch", "--json", "--server", there.base_url)
    done = gristmill(folder, *words)
    assert done.returncode == 0
    assert json.loads(done.stdout)["request_counts"] == {"total": 5, "completed": 5, "failed": 0}


def test_a_rejected_batch_is_explained_and_exits_with_1(there: ServerProcess, folder: Path) -> None:
    (folder / "in.jsonl").write_bytes(chat_file(1) + b"notes\n")
    done = gristmill(folder, "batches", "submit", "in.jsonl", "--watch", "--server", there.base_url)
    assert done.returncode == 1
    assert "line 2: This line is not parseable as valid JSON." in done.stderr


def test_what_the_server_refuses_is_told_in_its_words(there: ServerProcess, folder: Path) -> None:
    for command in ("show", "watch", "cancel"):
        message = sentence(gristmill(folder, "batches", command, "batch_x", "--server", there.base_url))
        assert message == "No batch found with id 'batch_x'."
    (folder / "in.jsonl").write_text("notes\n")
    message = sentence(gristmill(folder, "batches", "submit", "in.jsonl", "--server", there.base_url))
    assert message == "Invalid file format for Batch API. Must be .jsonl"


def test_what_is_left_of_another_download_is_not_mixed_into_this_one(there: ServerProcess, folder: Path) -> None:
    server = {"GRISTMILL_SERVER": there.base_url}
    done = gristmill(folder, "batches", "submit", "in.jsonl", "--watch", "--json", **server)
    (folder / "got.jsonl.part").write_text("the beginning of something else")
    assert (
        gristmill(folder, "batches", "download", json.loads(done.stdout)["id"], "-o", "got.jsonl", **server).returncode
        == 0
    )
    assert len([json.loads(line) for line in (folder / "got.jsonl").read_text().splitlines()]) == 5


def test_the_installed_command_and_the_module_are_the_same(folder: Path) -> None:
    installed = Path(sys.executable).with_name("gristmill")
    for command in ([str(installed)], [sys.executable, "-m", "gristmill"]):
        done = subprocess.run([*command, "run", "none.jsonl", "-o", "x"], cwd=folder, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (2, "Error: There is no file none.jsonl: check the name.\n")


def test_help_and_version_need_nothing(folder: Path) -> None:
    assert gristmill(folder, "--version").stdout.startswith("gristmill ")
    for words in (("--help",), ("serve", "-h"), ("run", "--help"), ("batches", "--help")):
        done = gristmill(folder, *words)
        assert done.returncode == 0 and "Usage:" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serve]\nprt = 1\n", "[serve] has no setting 'prt'"),
        ("[serv]\nport = 1\n", "the table [serv] is for no command"),
        ("[batches]\nprt = 1\n", "[batches] has no setting 'prt'"),
        ("[batches.list]\nprt = 1\n", "[batches] has no setting 'prt'"),
    ],
)
def test_a_setting_that_no_command_has_is_refused_by_name(folder: Path, text: str, said: str) -> None:
    (folder / "gristmill.toml").write_text(text)
    assert said in sentence(gristmill(folder, *RUN))
