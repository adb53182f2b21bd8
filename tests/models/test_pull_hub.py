from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import COMMAND, Run
from hub_stand_in import REPO, REVISION, HubStandIn

BIG = bytes(range(256)) * 16_384  # 4 MiB, and no two ranges of it are interchangeable by accident
MAIN = "grist.Q8_0.gguf"


def pulled(cache: Path, name: str = MAIN) -> Path:
    return cache / "models" / "hub" / REPO / name


def test_pull_says_how_big_and_which_licence_before_it_starts(hub: HubStandIn, models: Run, cache: Path) -> None:
    hub.files = {MAIN: BIG, "README.md": b"hello"}
    done = models("pull", REPO)
    assert done.returncode == 0, done.stderr
    assert f"{MAIN}, 4 MB to download. Licence: apache-2.0." in done.stderr
    assert done.stdout.strip() == str(pulled(cache))
    assert pulled(cache).read_bytes() == BIG
    assert not list(cache.rglob("README.md"))


def test_a_pulled_model_is_found_shown_and_listed(hub: HubStandIn, models: Run, cache: Path, gguf_bytes: bytes) -> None:
    hub.files = {MAIN: gguf_bytes}
    models("pull", REPO)
    facts = json.loads(models("show", "--json", REPO).stdout)
    assert (facts["context_length"], facts["architecture"], facts["quantisation"]) == (2048, "llama", "F32")
    assert (facts["revision"], facts["path"]) == (REVISION, str(pulled(cache)))
    rows = {row["name"]: row for row in json.loads(models("list", "--json").stdout)}
    assert rows[f"{REPO}:{MAIN}"]["source"] == "hub"
    assert rows[f"{REPO}:{MAIN}"]["pulled"] is True


def test_a_second_pull_needs_no_hub(hub: HubStandIn, models: Run) -> None:
    hub.files = {MAIN: BIG}
    models("pull", REPO)
    hub.requests.clear()
    done = models("pull", REPO, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0
    assert "already in the cache and intact" in done.stderr
    assert hub.requests == []


def test_a_cut_connection_is_resumed_within_the_pull(hub: HubStandIn, models: Run, cache: Path) -> None:
    hub.files, hub.stop_at, hub.stop_times = {MAIN: BIG}, 1_000_000, 1
    done = models("pull", REPO)
    assert done.returncode == 0, done.stderr
    first, second = hub.ranges_asked()
    assert first is None
    assert second is not None and 0 < int(second.removeprefix("bytes=")[:-1]) <= 1_000_000
    assert pulled(cache).read_bytes() == BIG


def test_a_connection_that_keeps_failing_is_explained_and_the_next_pull_continues(
    hub: HubStandIn, models: Run, cache: Path
) -> None:
    hub.files, hub.stop_at = {MAIN: BIG}, 1_000_000
    failed = models("pull", REPO)
    assert failed.returncode == 2
    assert "run the same command again, it continues from there" in failed.stderr
    assert not pulled(cache).exists()
    assert "not on this machine" in models("show", REPO).stderr
    hub.stop_at = None
    hub.requests.clear()
    done = models("pull", REPO)
    assert done.returncode == 0, done.stderr
    assert "of which 1 MB is here from an earlier attempt" in done.stderr
    assert hub.ranges_asked() == ["bytes=1000000-"]
    assert pulled(cache).read_bytes() == BIG
    assert not list(cache.rglob(".partial/*"))


@pytest.mark.parametrize(("signal_sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_killed_pull_continues_where_it_stopped(
    hub: HubStandIn, models: Run, cache: Path, signal_sent: signal.Signals, code: int
) -> None:
    hub.files, hub.stall_at = {MAIN: BIG}, 2_000_000
    command = [sys.executable, str(COMMAND), "pull", REPO]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert hub.stalled.wait(20)
        while sum(path.stat().st_size for path in cache.rglob(".partial/*/*")) < 1_900_000:
            time.sleep(0.02)
        process.send_signal(signal_sent)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert (b"nothing is broken" in errors) == (signal_sent == signal.SIGINT)
    hub.stall_at = None
    hub.requests.clear()
    assert models("pull", REPO).returncode == 0
    (asked,) = hub.ranges_asked()
    assert asked is not None and int(asked.removeprefix("bytes=")[:-1]) >= 1_900_000
    assert pulled(cache).read_bytes() == BIG


def test_a_server_that_ignores_ranges_still_gives_a_right_file(hub: HubStandIn, models: Run, cache: Path) -> None:
    hub.files, hub.stop_at, hub.stop_times, hub.ranges = {MAIN: BIG}, 1_000_000, 1, False
    assert models("pull", REPO).returncode == 0
    assert pulled(cache).read_bytes() == BIG


@pytest.mark.parametrize("plain", [False, True], ids=["by SHA-256", "by git's blob id"])
def test_corrupted_content_is_detected_and_not_kept(hub: HubStandIn, models: Run, cache: Path, plain: bool) -> None:
    hub.files = {MAIN: BIG}
    hub.served = {MAIN: BIG[:-1] + b"!"}
    hub.plain = {MAIN} if plain else set()
    failed = models("pull", REPO)
    assert failed.returncode == 2
    assert "checksum differs" in failed.stderr
    assert not list(cache.rglob("*.gguf"))
    hub.served = {}
    assert models("pull", REPO).returncode == 0


def test_a_damaged_pulled_file_is_fetched_again(hub: HubStandIn, models: Run, cache: Path) -> None:
    hub.files = {MAIN: BIG}
    models("pull", REPO)
    pulled(cache).write_bytes(b"x" * len(BIG))
    done = models("pull", REPO)
    assert "damaged: fetching it again" in done.stderr
    assert pulled(cache).read_bytes() == BIG


def test_an_openvino_ir_is_pulled_with_its_tokenizer(
    hub: HubStandIn, models: Run, cache: Path, ir_files: dict[str, bytes]
) -> None:
    hub.files = {**ir_files, "pytorch_model.bin": BIG}
    hub.plain = {name for name in ir_files if not name.endswith(".bin")}
    done = models("pull", REPO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(pulled(cache, ""))
    facts = json.loads(models("show", "--json", REPO).stdout)
    assert (facts["kind"], facts["context_length"], facts["quantisation"]) == ("ir", 4096, "i8")
    assert not list(cache.rglob("pytorch_model.bin"))


def test_of_several_models_one_must_be_named(hub: HubStandIn, models: Run, cache: Path) -> None:
    hub.files = {MAIN: BIG, "small/grist.Q4_0.gguf": BIG[:1000]}
    failed = models("pull", REPO)
    assert failed.returncode == 2
    assert "holds 2 models: small/grist.Q4_0.gguf (1 kB), grist.Q8_0.gguf (4 MB)" in failed.stderr
    done = models("pull", f"{REPO}:grist.Q4_0.gguf")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(pulled(cache, "small/grist.Q4_0.gguf"))
    # The one that is here is now what the repository's name means on this machine.
    assert "already in the cache" in models("pull", REPO).stderr
    assert models("pull", f"{REPO}:{MAIN}").returncode == 0
    assert "Several pulled models fit" in models("show", REPO).stderr


def test_an_unknown_repository_is_one_clear_sentence(hub: HubStandIn, models: Run) -> None:
    failed = models("pull", "mill/unknown")
    assert failed.returncode == 2
    assert failed.stderr.strip() == (
        "Error: The hub has no public model repository 'mill/unknown': check the spelling "
        "(organisation/repository), or set HF_TOKEN if it is private."
    )


def test_a_gated_repository_says_what_to_do(hub: HubStandIn, models: Run) -> None:
    hub.gated = True
    failed = models("pull", REPO)
    assert failed.returncode == 2
    assert "accept its terms first" in failed.stderr


def test_an_unreachable_hub_is_one_clear_sentence(cache: Path, models: Run) -> None:
    failed = models("pull", REPO, HF_ENDPOINT="http://127.0.0.1:9")
    assert failed.returncode == 2
    assert failed.stderr.startswith("Error: The model hub http://127.0.0.1:9 could not be asked")
    assert failed.stderr.count("\n") == 1


def test_a_listed_file_outside_the_repository_is_refused(hub: HubStandIn, models: Run, cache: Path) -> None:
    hub.files = {"../../../evil.gguf": BIG}
    failed = models("pull", REPO)
    assert failed.returncode == 2
    assert "outside of itself" in failed.stderr
    assert not list(cache.parent.rglob("evil.gguf"))
