"""How much memory there is left, as the system and a container's limit say."""

from __future__ import annotations

from pathlib import Path

from gristmill.machine_memory import available_memory


def test_the_smaller_of_what_the_system_has_and_a_container_may_have(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  1000 kB\nMemAvailable:  600 kB\n")
    assert available_memory(meminfo, tmp_path) == 600 * 1024
    (tmp_path / "memory.max").write_text("500000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000\nactive_file 5\n")
    assert available_memory(meminfo, tmp_path) == 200_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(meminfo, tmp_path) == 600 * 1024


def test_a_system_that_does_not_say_is_not_guessed_at(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "meminfo", tmp_path) is None


def test_this_machine_says() -> None:
    assert (available_memory() or 0) > 2**20
