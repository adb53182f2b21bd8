"""Prefixes on disk: whatever becomes of their files, what is read is what was written, or nothing."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gristmill.engines.embedded.prefix_files.prefix_file import Slice
from gristmill.engines.embedded.prefix_files.prefix_folder import prefix_files
from gristmill.engines.embedded.prefix_files.prefix_store import Found, PrefixStore
from gristmill.engines.embedded.prefix_files.prefix_tokens import pack_tokens

SLICE = 4
GIB = 2**30


class Log(list[str]):
    def __call__(self, sentence: str) -> None:
        self.append(sentence)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def store(tmp_path: Path, log: Log) -> PrefixStore:
    return opened(tmp_path, log)


def opened(tmp_path: Path, log: Log, made_by: str = "model a, library 1", most_bytes: int = GIB) -> PrefixStore:
    return PrefixStore(tmp_path / "prefixes", made_by, "a", most_bytes, log)


def state(tokens: list[int]) -> bytes:
    """Pretended KV state of the last slice of the tokens: it depends on all of them."""
    return hashlib.sha256(pack_tokens(tokens)).digest() * 3


def keep(store: PrefixStore, tokens: list[int]) -> bool:
    return store.save(tokens, SLICE, (state(tokens[:end]) for end in range(SLICE, len(tokens) + SLICE, SLICE)))


def read(store: PrefixStore, tokens: list[int]) -> int:
    """How many of the tokens are read, each slice with the state that belongs to it."""
    found = store.find(tokens, len(tokens))
    if found is None:
        return 0
    pieces: list[Slice] = []
    taken = store.read(found, tokens, pieces.append)
    assert taken <= found.tokens and taken <= max((piece.end for piece in pieces), default=0)
    for piece in pieces:
        assert piece.end > len(tokens) or piece.data == state(tokens[: piece.end])
    return taken


def files(tmp_path: Path) -> list[Path]:
    return sorted(each.path for each in prefix_files(tmp_path / "prefixes"))


def test_a_prefix_is_read_as_it_was_written_by_whoever_computes_the_same(tmp_path: Path, log: Log) -> None:
    tokens = list(range(10))
    assert keep(opened(tmp_path, log), tokens)
    again = opened(tmp_path, log)
    assert again.find(tokens, 10) == Found(files(tmp_path)[0], 10)
    assert read(again, tokens) == 10
    # Also of what begins alike, and no more than is wanted.
    assert read(again, [0, 1, 2, 3, 4, 99, 6]) == 5
    assert again.find([*tokens, 11], 7) == Found(files(tmp_path)[0], 7)
    assert again.find([5, 6], 2) is None
    assert log == []


def test_another_model_precision_or_library_never_reads_it(tmp_path: Path, log: Log) -> None:
    tokens = list(range(10))
    keep(opened(tmp_path, log), tokens)
    for other in ("model b, library 1", "model a, library 2"):
        assert opened(tmp_path, log, other).find(tokens, 10) is None
        # Not even under the other's name.
        renamed = tmp_path / "prefixes" / f"{hashlib.sha256(other.encode()).hexdigest()[:16]}-0.prefix"
        renamed.write_bytes(files(tmp_path)[-1].read_bytes())
        assert opened(tmp_path, log, other).find(tokens, 10) is None
        assert not renamed.exists() and "not of the model" in log.pop()
    assert read(opened(tmp_path, log), tokens) == 10


def test_the_one_with_most_of_the_tokens_is_found_and_shorter_beginnings_of_it_go(
    tmp_path: Path, store: PrefixStore
) -> None:
    rubric = list(range(20))
    keep(store, rubric)
    keep(store, [*rubric[:12], 90, 91])
    assert read(store, [*rubric[:12], 90, 91, 1]) == 14
    assert read(store, rubric) == 20
    keep(store, [*rubric, 70, 71, 72])
    assert len(files(tmp_path)) == 2
    assert read(store, rubric) == 20


def test_a_file_that_another_process_made_or_removed_is_noticed(tmp_path: Path, store: PrefixStore, log: Log) -> None:
    tokens = list(range(10))
    assert store.find(tokens, 10) is None
    keep(opened(tmp_path, log), tokens)
    assert read(store, tokens) == 10
    found = store.find(tokens, 10)
    files(tmp_path)[0].unlink()
    assert found is not None and store.read(found, tokens, lambda _: None) == 0
    assert store.find(tokens, 10) is None
    assert log == []


def test_everything_is_for_this_user_alone(tmp_path: Path, log: Log) -> None:
    before = os.umask(0)
    try:
        keep(opened(tmp_path, log), [1, 2, 3])
    finally:
        os.umask(before)
    for path in [tmp_path / "prefixes", *(tmp_path / "prefixes").iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path: Path, log: Log) -> None:
    (tmp_path / "prefixes").mkdir()
    (tmp_path / "prefixes").chmod(0o777)
    assert not opened(tmp_path, log).usable
    assert len(log) == 1 and "not this user's alone" in log[0]


def test_a_file_cut_anywhere_gives_a_right_beginning_at_most_and_is_removed(tmp_path: Path, log: Log) -> None:
    tokens = list(range(10))
    keep(opened(tmp_path, log), tokens)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        store = opened(tmp_path, log)
        assert read(store, tokens) < 10
        assert not path.exists() and store.find(tokens, 10) is None
        assert len(log) == 1 and "computed again" in log.pop()


def test_a_file_changed_anywhere_gives_a_right_beginning_at_most_and_is_removed(tmp_path: Path, log: Log) -> None:
    tokens = list(range(10))
    keep(opened(tmp_path, log), tokens)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        assert read(opened(tmp_path, log), tokens) < 10
        assert not path.exists() and len(log) == 1, place
        log.clear()


def test_what_comes_to_harm_after_it_was_found_is_not_used(tmp_path: Path, store: PrefixStore, log: Log) -> None:
    tokens = list(range(10))
    keep(store, tokens)
    found = store.find(tokens, 10)
    assert found is not None
    damaged = bytearray(found.path.read_bytes())
    damaged[-1] ^= 1
    found.path.write_bytes(damaged)
    assert store.read(found, tokens, lambda _: None) == 8
    assert store.find(tokens, 10) is None and len(log) == 1
    assert keep(store, tokens) and read(store, tokens) == 10


def heading(**changed: object) -> bytes:
    usual = {"made_by": "model a, library 1", "model": "a", "tokens": pack_tokens([1, 2, 3]), "slice_tokens": 4}
    return msgspec.msgpack.encode(usual | changed)


def framed(body: bytes, length: int | None = None, mark: bytes = b"gristmill prefix 1\n") -> bytes:
    start = mark + struct.pack("<Q", len(body) if length is None else length) + body
    return start + hashlib.sha256(start).digest()


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "something else": b"GGUF" * 100,
    "an older version": framed(heading(), mark=b"gristmill prefix 0\n"),
    "a heading longer than the file": framed(heading(), length=10**6),
    "a heading of 2**64 bytes": framed(heading(), length=2**64 - 1),
    "no map": framed(b"\xc0"),
    "nested": framed(b"\x91" * 100_000),
    "no tokens": framed(heading(tokens=b"")),
    "half a token": framed(heading(tokens=b"\1\2\3")),
    "slices of nothing": framed(heading(slice_tokens=0)),
    "slices of less than nothing": framed(heading(slice_tokens=-5)),
    "slices of 2**70": framed(heading(slice_tokens=2**63)),
    "text as tokens": framed(heading(tokens="abcd")),
    "no slice": framed(heading()),
    "a slice of 2**64 bytes": framed(heading()) + struct.pack("<Q", 2**64 - 1) + b"\0" * 40,
    "a slice longer than the file": framed(heading()) + struct.pack("<Q", 10**12) + b"\0" * 40,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_contents_are_not_read_and_removed(tmp_path: Path, store: PrefixStore, log: Log, name: str) -> None:
    keep(store, [1, 2, 3])
    (path,) = files(tmp_path)
    path.write_bytes(HOSTILE[name])
    assert read(opened(tmp_path, log), [1, 2, 3]) == 0
    assert len(log) == 1 and str(path) in log[0] and not path.exists()


def test_what_is_no_file_is_left_alone_or_removed_and_nothing_waits_for_it(
    tmp_path: Path, store: PrefixStore, log: Log
) -> None:
    keep(store, [1, 2, 3])
    (path,) = files(tmp_path)
    elsewhere = path.rename(tmp_path / "elsewhere")
    os.mkfifo(path)
    assert read(opened(tmp_path, log), [1, 2, 3]) == 0
    path.symlink_to(elsewhere)
    assert read(opened(tmp_path, log), [1, 2, 3]) == 0
    assert elsewhere.exists() and not path.is_symlink()
    path.mkdir()
    again = opened(tmp_path, log)
    assert read(again, [1, 2, 3]) == read(again, [1, 2, 3]) == 0
    assert len(log) == 3
    # One that is kept cannot be put there either; that is said and nothing else.
    assert not keep(again, [1, 2, 3])
    assert len(log) == 4


def size_of(tokens: int) -> int:
    return 200 + tokens * 4 + -(-tokens // SLICE) * 136


def test_the_one_used_longest_ago_goes_when_there_is_too_little_room(tmp_path: Path, log: Log) -> None:
    store = opened(tmp_path, log, most_bytes=3 * size_of(40))
    rubrics = [[rubric] * 40 for rubric in range(5)]
    for number, rubric in enumerate(rubrics[:3]):
        assert keep(store, rubric)
        found = store.find(rubric, 40)
        assert found is not None
        os.utime(found.path, (number, number))
    # Used now.
    assert read(store, rubrics[0]) == 40
    other = opened(tmp_path, log, "model b, library 1", most_bytes=3 * size_of(40))
    assert keep(other, rubrics[3])
    assert [bool(store.find(rubric, 40)) for rubric in rubrics[:3]] == [True, False, True]
    assert keep(store, rubrics[4])
    assert [bool(store.find(rubric, 40)) for rubric in rubrics] == [True, False, False, False, True]
    assert sum(each.size for each in prefix_files(tmp_path / "prefixes")) <= 3 * size_of(40)
    assert log == []


def test_one_that_is_larger_than_the_room_is_said_once_and_others_stay(tmp_path: Path, log: Log) -> None:
    store = opened(tmp_path, log, most_bytes=2 * size_of(40))
    assert keep(store, [1] * 40)
    assert not keep(store, [2] * 400)
    assert not keep(store, [2] * 400)
    assert read(store, [1] * 40) == 40
    assert len(log) == 1 and "400 tokens" in log[0]
    assert list((tmp_path / "prefixes").glob(".writing-*")) == []


def test_one_whose_writing_is_given_up_leaves_nothing(tmp_path: Path, store: PrefixStore) -> None:
    def given_up() -> Iterator[bytes]:
        yield state([1] * 4)
        raise KeyError

    with pytest.raises(KeyError):
        store.save([1] * 40, SLICE, given_up())
    assert [path.name for path in (tmp_path / "prefixes").iterdir()] == [".lock"]


def test_a_folder_that_goes_is_made_again(tmp_path: Path, store: PrefixStore, log: Log) -> None:
    keep(store, [1, 2, 3])
    for path in (tmp_path / "prefixes").iterdir():
        path.unlink()
    (tmp_path / "prefixes").rmdir()
    assert store.find([1, 2, 3], 3) is None
    assert keep(store, [1, 2, 3]) and read(store, [1, 2, 3]) == 3
    assert log == []


def test_a_full_disk_is_one_sentence_and_space_lets_it_go_on(tmp_path: Path) -> None:
    """The limit of a file's size is met where a full disk would be: in the middle of writing."""
    program = """
        import resource
        most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most[1]))
        assert not keep(store, [1] * 400) and not keep(store, [1] * 400)
        assert keep(store, [2] * 4)
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
        assert keep(store, [1] * 400)
    """
    done = subprocess.run(in_a_process(program, tmp_path), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1 and "cannot be kept" in done.stdout and "too large" in done.stdout
    assert read(opened(tmp_path, Log()), [1] * 400) == 400


def in_a_process(program: str, tmp_path: Path, most_bytes: int = GIB) -> list[str]:
    begin = f"""
        import random, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_prefix_store import keep, opened, state
        store = opened(Path({str(tmp_path)!r}), print, most_bytes={most_bytes})
    """
    return [sys.executable, "-c", textwrap.dedent(begin) + textwrap.dedent(program)]


def test_killed_at_any_moment_of_writing_no_damaged_file_is_there(tmp_path: Path, log: Log) -> None:
    begun = 0
    for _ in range(50):
        writer = os.fork()
        if not writer:
            store = opened(tmp_path, log)
            while True:
                keep(store, [random.randrange(8)] * 400)
        time.sleep(random.random() * 0.03)
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        begun += len(list((tmp_path / "prefixes").glob(".writing-*")))
        store = opened(tmp_path, log)
        # What it had begun is gone with the next start.
        assert list((tmp_path / "prefixes").glob(".writing-*")) == []
        for number in range(8):
            assert read(store, [number] * 400) in (0, 400)
    assert log == [] and files(tmp_path) and begun


def test_processes_that_write_and_make_room_at_once_lose_nothing_and_keep_the_bound(tmp_path: Path, log: Log) -> None:
    most = 5 * size_of(400)
    program = """
        for _ in range(40):
            assert keep(store, [random.randrange(12)] * 400)
    """
    writers = [subprocess.Popen(in_a_process(program, tmp_path, most), stdout=subprocess.PIPE) for _ in range(3)]
    store = opened(tmp_path, log, most_bytes=most)
    while any(writer.poll() is None for writer in writers):
        for number in range(12):
            assert read(store, [number] * 400) in (0, 400)
    for writer in writers:
        assert writer.communicate()[0] == b"" and writer.returncode == 0
    found = prefix_files(tmp_path / "prefixes")
    assert 3 <= len(found) <= 5 and sum(each.size for each in found) <= most
    assert sum(read(store, [number] * 400) == 400 for number in range(12)) == len(found)
    assert log == [] and list((tmp_path / "prefixes").glob(".writing-*")) == []
