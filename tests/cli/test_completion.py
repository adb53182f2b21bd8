"""Completion in real shells; where one is not installed, its tests say so and are skipped."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked_command import run_forked

from gristmill.cli.completion import split_line

#: A line to complete, and what must and must not be offered.
CASES = [
    ("gristmill ba", {"batches"}, {"bench"}),
    ("gristmill batches down", {"download"}, {"list"}),
    ("gristmill run --engi", {"--engine", "--engine-option"}, {"--model"}),
    ("gristmill run --engine o", {"ollama", "openai_compatible", "openvino"}, {"simulated"}),
    ("gristmill run --engine=sim", {"simulated"}, {"openvino"}),
    ("gristmill serve --log-level w", {"warning"}, {"debug"}),
    ("gristmill score --method g", {"generate"}, {"labels"}),
    ("gristmill models pull smol", {"smollm2-135m-instruct"}, {"gemma3-270m"}),
    ("gristmill run row", {"rows.jsonl"}, {"other.txt"}),
    ("gristmill run rows.jsonl -o oth", {"other.txt"}, {"rows.jsonl"}),
    ("gristmill completion z", {"zsh"}, {"bash"}),
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "gristmill"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gristmill "$@"\n')
    script.chmod(0o755)
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "other.txt").touch()
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GRISTMILL_", "XDG_"))}
    return kept | {"HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "TERM": "dumb"}


def installed(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


def bash(home: Path, line: str, wanted: set[str]) -> set[str]:
    """As readline calls it: words broken at spaces, equals signs and colons."""
    words = [word for word in re.split(r"(=)| ", line) if word]
    script = f"""
eval "$(gristmill completion bash)"
COMP_LINE={line!r} COMP_POINT={len(line)} COMP_CWORD={len(words) - 1}
COMP_WORDS=({" ".join(repr(word) for word in words)})
_gristmill 2>&1
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        [installed("bash"), "--norc", "-c", script], cwd=home, env=environment(home), capture_output=True, text=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def fish(home: Path, line: str, wanted: set[str]) -> set[str]:
    script = f'gristmill completion fish | source; complete -C "{line}"'
    command = [installed("fish"), "--no-config", "-c", script]
    done = subprocess.run(command, cwd=home, env=environment(home), capture_output=True, text=True)
    assert done.stderr == ""
    return {each.partition("\t")[0].rpartition("=")[2] for each in done.stdout.splitlines()}


def zsh(home: Path, line: str, wanted: set[str]) -> set[str]:
    """At a terminal, with Tab and Ctrl-X for a list: it has no other way to ask. What a terminal shows has no end, so
    it is looked at for as long as it takes what is ``wanted`` to come, and a little longer."""
    (home / ".zshrc").write_text('PS1="> "\nautoload -Uz compinit\ncompinit -u\neval "$(gristmill completion zsh)"\n')
    (home / ".zshrc").open("a").write("bindkey '^X' list-choices\nunsetopt zle_bracketed_paste\necho READY\n")
    shell = installed("zsh")
    child, terminal = pty.fork()
    if not child:
        os.chdir(home)
        os.execve(shell, ["zsh", "-i"], environment(home) | {"TERM": "vt100", "COLUMNS": "200", "LINES": "50"})
    shown = _read_until(terminal, lambda text: "> " in text.rpartition("READY")[2])
    os.write(terminal, line.encode() + b"\t\x18")
    shown = _read_until(terminal, lambda text: wanted <= _words(text))
    deadline = time.monotonic() + 1
    shown += _read_until(terminal, lambda text: time.monotonic() > deadline)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(terminal)
    return _words(shown)


def _words(shown: str) -> set[str]:
    return set(re.split(r"[\s=\x00\x07\x08]+|\x1b\[[0-9;?]*[A-Za-z]", shown))


def _read_until(terminal: int, enough: Callable[[str], bool]) -> str:
    # Not ``select.select``: it takes no descriptor beyond 1023, and a long test run may have some.
    ready = select.poll()
    ready.register(terminal, select.POLLIN)
    shown, end = b"", time.monotonic() + 60
    while time.monotonic() < end and not enough(shown.decode(errors="replace")):
        if ready.poll(200):
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                break
    return shown.decode(errors="replace")


@pytest.mark.parametrize("ask", [bash, fish, zsh], ids=lambda ask: ask.__name__)
def test_what_a_shell_offers(home: Path, ask: Callable[[Path, str, set[str]], set[str]]) -> None:
    # A terminal's answer has no end, so that each case at one takes some seconds.
    for line, wanted, unwanted in CASES[::3] if ask is zsh else CASES:
        offered = ask(home, line, wanted)
        assert wanted <= offered and not unwanted - set(line.split()) & offered, (line, offered)


def test_a_line_that_is_being_typed_is_taken_apart() -> None:
    assert split_line("gristmill ") == ([], "")
    assert split_line("gristmill run 'a b' --engi") == (["run", "a b"], "--engi")
    assert split_line("gristmill run ") == (["run"], "")
    assert split_line('gristmill run "a b') == (["run", '"a'], "b")


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ((), {"SHELL": ""}, "Error: Name your shell, one of: bash, zsh, fish.\n"),
        ((), {"SHELL": "/bin/csh"}, "Error: There is no completion for 'csh'. Name one of: bash, zsh, fish.\n"),
        (("tcsh",), {}, "Error: There is no completion for 'tcsh'. Name one of: bash, zsh, fish.\n"),
    ],
)
def test_a_shell_that_is_not_named_or_not_known_is_a_sentence(
    tmp_path: Path, words: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    done = run_forked(tmp_path, ["completion", *words], environment)
    assert (done.returncode, done.stderr) == (2, said)
