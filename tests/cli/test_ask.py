"""``gristmill ask``: one question, here and on a server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_command import Done, run_forked

import flaky_proxy as broken
from flaky_proxy import FlakyProxy
from server_process import ServerProcess

ENGINE = ("--engine", "simulated")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("-O", "fail_on=hopeless", "-O", "failure_kind=invalid_request")
    with ServerProcess(tmp_path_factory.mktemp("data"), *options) as running:
        yield running


def ask(folder: Path, *words: str, stdin: bytes = b"") -> Done:
    return run_forked(folder, ["ask", *words], {}, stdin)


def content(done: Done) -> str:
    return str(json.loads(done.stdout)["choices"][0]["message"]["content"])


def prompt_tokens(done: Done) -> int:
    return int(json.loads(done.stdout)["usage"]["prompt_tokens"])


def test_here_and_on_a_server_the_answer_is_the_same_whole_and_streamed(server: ServerProcess, tmp_path: Path) -> None:
    address = server.base_url.removesuffix("/v1")
    answers = [ask(tmp_path, "How are you?", *where, "--json") for where in (ENGINE, ("--server", address))]
    assert [done.returncode for done in answers] == [0, 0] and content(answers[0]) == content(answers[1])
    for where in (ENGINE, ("--server", address)):
        done = ask(tmp_path, "How are you?", *where)
        assert (done.returncode, done.stdout, done.stderr) == (0, content(answers[0]) + "\n", "")


def test_the_system_message_and_what_is_piped_in_are_asked_too(tmp_path: Path) -> None:
    plain = ask(tmp_path, "Sum up:", *ENGINE, "--json")
    piped = ask(tmp_path, "Sum up:", *ENGINE, "--json", stdin=b"a long text of eight words or so\n")
    both = ask(tmp_path, "Sum up:", *ENGINE, "--json", "--system", "Be brief, please.", stdin=b"a long text\n")
    assert prompt_tokens(plain) < prompt_tokens(piped) and prompt_tokens(plain) < prompt_tokens(both)
    assert content(plain) != content(piped) != content(both)
    alone = ask(tmp_path, "-", *ENGINE, "--json", stdin=b"Sum up:")
    assert content(alone) == content(plain)


def test_an_answer_that_was_cut_off_says_so_on_standard_error(server: ServerProcess, tmp_path: Path) -> None:
    for where in (ENGINE, ("--server", server.base_url)):
        done = ask(tmp_path, "Go on", "--max-tokens", "2", *where)
        assert done.returncode == 0 and len(done.stdout.split()) == 2
        assert done.stderr == "The answer was cut off: --max-tokens allows no more.\n"


@pytest.mark.parametrize(
    ("words", "stdin", "expected"),
    [
        (("-",), b" \n", "There is no question"),
        (("-",), b"\xff\xfe", "is not UTF-8"),
        (("hi", "--model", "other", "--server", "SERVER"), b"", "The model 'other' does not exist"),
        (("hopeless", "--server", "SERVER"), b"", ""),
        (("hopeless", *ENGINE, "-O", "fail_on=hopeless", "-O", "failure_kind=invalid_request"), b"", ""),
        (("hi", "--server", "127.0.0.1:1"), b"", "No server answers at http://127.0.0.1:1/v1"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(
    server: ServerProcess, tmp_path: Path, words: tuple[str, ...], stdin: bytes, expected: str
) -> None:
    done = ask(tmp_path, *(server.base_url if word == "SERVER" else word for word in words), stdin=stdin)
    assert done.returncode == 2 and done.stderr.startswith("Error: ") and expected in done.stderr, done


def test_a_connection_that_breaks_before_the_answer_costs_nothing(server: ServerProcess, tmp_path: Path) -> None:
    with FlakyProxy(server.base_url) as proxy:
        proxy.faults.extend([broken.forward, broken.reset, broken.unavailable])
        done = ask(tmp_path, "How are you?", "--server", proxy.base_url)
    assert done.returncode == 0 and done.stdout == ask(tmp_path, "How are you?", *ENGINE).stdout


def test_an_answer_that_breaks_off_is_not_taken_for_whole(server: ServerProcess, tmp_path: Path) -> None:
    with FlakyProxy(server.base_url) as proxy:
        proxy.faults.extend([broken.forward, broken.cut_after(500)])
        done = ask(tmp_path, "How are you?", "--server", proxy.base_url)
    assert done.returncode == 2 and "The answer was cut off" in done.stderr
    assert done.stdout.endswith("\n") and len(done.stdout) > 1


@pytest.mark.parametrize("where", ["here", "server"])
def test_ctrl_c_ends_it_quietly(tmp_path: Path, where: str) -> None:
    slow = ("-O", "decode_speed=5")
    with ServerProcess(tmp_path / "data", *slow) as server:
        words = ("--server", server.base_url) if where == "server" else (*ENGINE, *slow)
        command = [sys.executable, "-m", "gristmill", "ask", "Go on", *words]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=tmp_path)
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 1)  # The first of it is there while the rest is being decoded.
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (130, b"") and out.endswith(b"\n")


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gristmill", "ask", "Go on", *ENGINE, "-O", "decode_speed=20"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    os.read(process.stdout.fileno(), 1)
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == (b"", 0)
