"""Backups taken and restored: whole or not at all, whatever comes between, and whatever is in them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from dying_process import run_until_change
from stocked_folder import SCORING, add_batch, add_file, content, stocked, use
from test_migrations import REVISIONS, database_of_version
from test_migrations import content as stored_at_first

from gristmill.storage.care.backup import Backup, take_backup
from gristmill.storage.care.copying import Readable, copy_into
from gristmill.storage.care.manifest import Entry, Manifest
from gristmill.storage.care.restore import restore
from gristmill.storage.open import OpenStorage, StorageSettings
from gristmill.storage.protocol import Storage
from gristmill.user_error import UserError


def silent(*_: object) -> None:
    pass


def back_up(data: Path, target: Path, progress: Callable[[str, int, int], None] = silent) -> Backup:
    return asyncio.run(take_backup(StorageSettings(data), target, progress))


def put_back(backup: Path, data: Path, force: bool = False) -> Manifest:
    return asyncio.run(restore(StorageSettings(data), backup, force, silent))


async def more(storage: Storage) -> None:
    await storage.metadata.files.delete("file-2")
    await storage.blobs.delete("files/file-2")
    await storage.metadata.files.mark_erased("file-2")
    await add_file(storage, "file-3", b"three\n" * 100)
    await add_batch(storage, "batch_2", 5, 5)
    scoring = Path(storage.blobs.location).parent / SCORING
    shutil.rmtree(scoring / "work")
    (scoring / "scores.csv").write_text("scores")


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_what_is_restored_is_what_was_backed_up(tmp_path: Path, name: str) -> None:
    data = stocked(tmp_path / "data")
    (data / "answers.db").touch()
    with sqlite3.connect(data / "answers.db") as connection:
        connection.execute("CREATE TABLE answers (key)")
    connection.close()
    back_up(data, tmp_path / name)
    put_back(tmp_path / name, tmp_path / "new")
    assert (tmp_path / "new" / "answers.db").exists()
    assert content(tmp_path / "new") == content(data)
    readable = [path for path in (tmp_path / "new", *(tmp_path / "new").rglob("*")) if path.stat().st_mode & 0o077]
    assert not readable, "for nobody else to read"


def test_a_folder_is_brought_up_to_date_and_only_what_is_new_is_read(tmp_path: Path) -> None:
    data, backup = stocked(tmp_path / "data"), tmp_path / "backup"
    back_up(data, backup)
    asyncio.run(use(data, more))
    made = back_up(data, backup)
    assert made.copied == sum(entry.bytes for entry in made.manifest.made) + len(b"three\n" * 100)
    assert sorted(path.name for path in (backup / "blobs").rglob("file-*")) == ["file-1", "file-3"]
    assert len(list(backup.glob("*.db"))) == 1
    put_back(backup, tmp_path / "new")
    assert content(tmp_path / "new") == content(data)


def test_a_server_is_running_and_writes_on(tmp_path: Path) -> None:
    data = tmp_path / "data"

    async def story(storage: Storage) -> None:
        await add_file(storage, "file-1", b"one")
        await take_backup(StorageSettings(data), tmp_path / "backup", silent)
        await add_file(storage, "file-2", b"two")

    asyncio.run(use(data, story))
    put_back(tmp_path / "backup", tmp_path / "new")
    assert content(tmp_path / "new")["blobs"] == {"file-1": b"one"}


def test_a_file_that_is_deleted_meanwhile_is_not_missing_in_the_backup(tmp_path: Path) -> None:
    data, deleted = stocked(tmp_path / "data"), []

    def delete(what: str, _done: int, _total: int) -> None:
        if what == "files" and not deleted:
            deleted.append("file-2")
            (data / "blobs/files/file-2").unlink()
            with sqlite3.connect(data / "gristmill.db") as connection:
                connection.execute("UPDATE files SET deleted = 1, erased = 1 WHERE id = 'file-2'")
            connection.close()

    manifest = back_up(data, tmp_path / "backup", delete).manifest
    assert deleted and manifest.damaged == [] and [entry.path for entry in manifest.blobs] == ["files/file-1"]
    put_back(tmp_path / "backup", tmp_path / "new")
    assert content(tmp_path / "new") == content(data)


def test_bytes_that_were_lost_before_are_named_and_the_rest_is_backed_up(tmp_path: Path) -> None:
    data = stocked(tmp_path / "data")
    (data / "blobs/files/file-1").unlink()
    (data / "blobs/files/file-2").write_bytes(b"cut")
    manifest = back_up(data, tmp_path / "backup").manifest
    assert manifest.damaged == ["files/file-1", "files/file-2"]
    put_back(tmp_path / "backup", tmp_path / "new")
    assert content(tmp_path / "new") == content(data)


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_killed_at_any_moment_there_is_the_backup_before_or_the_new_one(tmp_path: Path, name: str) -> None:
    data = stocked(tmp_path / "data")
    before = content(data)
    if name == "backup":
        back_up(data, tmp_path / "first")
    asyncio.run(use(data, more))
    after = content(data)
    moment, killed, seen = 0, True, set()
    while killed:
        moment += 1
        folder = tmp_path / str(moment)
        folder.mkdir()
        backup = folder / name
        if name == "backup":
            shutil.copytree(tmp_path / "first", backup)
        killed = run_until_change(moment, lambda: take_backup(StorageSettings(data), backup, silent))  # noqa: B023
        try:
            put_back(backup, folder / "new")
        except UserError:
            assert name == "backup.tar" and not backup.exists()
            seen.add("none")
        else:
            found = content(folder / "new")
            assert found in (before, after)
            seen.add("before" if found == before else "after")
        # What was left does not disturb the next one.
        if not (name == "backup.tar" and backup.exists()):
            back_up(data, backup)
        assert not list(folder.rglob("*.part"))
        shutil.rmtree(folder)
    assert moment > 5 and len(seen) == 2


@pytest.mark.parametrize("force", [False, True])
def test_a_restoring_that_is_killed_is_never_taken_for_whole(tmp_path: Path, force: bool) -> None:
    old = stocked(tmp_path / "data")
    before = content(old)
    asyncio.run(use(old, more))
    back_up(old, tmp_path / "backup")
    after = content(old)
    moment, killed = 0, True
    while killed:
        moment += 1
        data = tmp_path / str(moment)
        if force:
            stocked(data)
        killed = run_until_change(moment, lambda: restore(StorageSettings(data), tmp_path / "backup", force, silent))  # noqa: B023
        if (data / "restoring").exists():
            with pytest.raises(UserError, match="restore' again"):
                asyncio.run(OpenStorage(StorageSettings(data)).start())
        elif (data / "gristmill.db").exists():
            assert content(shutil.copytree(data, tmp_path / "copy")) in ((before, after) if force else (after,))
            shutil.rmtree(tmp_path / "copy")
        if (data / "restoring").exists() or not (data / "gristmill.db").exists() or (force and killed):
            put_back(tmp_path / "backup", data, force=force)
        assert content(data) == after
        assert {path.name for path in data.iterdir()} == {
            "gristmill.db", "gristmill.db.reserve", "blobs", "scoring", "lock",
        }  # fmt: skip
        shutil.rmtree(data)
    assert moment > 10


def test_a_folder_in_use_or_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    data = stocked(tmp_path / "data")
    back_up(data, tmp_path / "backup")

    async def story(_: Storage) -> None:
        with pytest.raises(UserError, match="in use by another Gristmill"):
            await restore(StorageSettings(data), tmp_path / "backup", True, silent)

    asyncio.run(use(data, story))
    with pytest.raises(UserError, match="not empty"):
        put_back(tmp_path / "backup", data)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not empty \(thesis.txt\)"):
        put_back(tmp_path / "backup", other)
    with pytest.raises(UserError, match="no backup and not empty"):
        back_up(data, other)
    (other / "thesis.txt").rename(other / "thesis.db")
    with pytest.raises(UserError, match="no backup and not empty"):
        back_up(data, other)
    assert (other / "thesis.db").read_text() == "mine"
    for inside in (data, data / "inside", tmp_path):
        with pytest.raises(UserError, match="name (a|another) folder"):
            back_up(data, inside)
    with pytest.raises(UserError, match="There is no database"):
        back_up(tmp_path / "elsewhere", tmp_path / "third")
    assert not (tmp_path / "third").exists() and not (tmp_path / "elsewhere").exists()


def changed_manifest(backup: Path, change: Callable[[dict[str, object]], None]) -> None:
    manifest = json.loads((backup / "manifest.json").read_bytes())
    change(manifest)
    (backup / "manifest.json").write_text(json.dumps(manifest))


def _entry(path: str, like: Path) -> dict[str, object]:
    import hashlib

    return {"path": path, "bytes": like.stat().st_size, "sha256": hashlib.sha256(like.read_bytes()).hexdigest()}


def _change_database(statement: str) -> Callable[[Path], None]:
    def change(backup: Path) -> None:
        (database,) = backup.glob("database-*.db")
        with sqlite3.connect(database) as connection:
            connection.execute(statement)
        connection.close()
        changed_manifest(backup, lambda it: it.update(database=_entry(database.name, database)))

    return change


def _link_blob(backup: Path) -> None:
    blob = backup / "blobs/files/file-1"
    target = backup.parent / "secret"
    shutil.copy(blob, target)
    blob.unlink()
    blob.symlink_to(target)


def _link_folder(backup: Path) -> None:
    (backup / "blobs/files").rename(backup.parent / "elsewhere")
    (backup / "blobs/files").symlink_to(backup.parent / "elsewhere")


def _pipe(backup: Path) -> None:
    (backup / "blobs/files/file-1").unlink()
    os.mkfifo(backup / "blobs/files/file-1")


def _climb(path: str) -> Callable[[Path], None]:
    def change(backup: Path) -> None:
        (backup.parent / "secret").write_text("secret")
        changed_manifest(backup, lambda it: it["blobs"].append(_entry(path, backup.parent / "secret")))  # type: ignore[attr-defined]

    return change


HOSTILE: dict[str, Callable[[Path], object]] = {
    "a changed byte": lambda backup: (backup / "blobs/files/file-1").write_bytes(b"One\n" + b"one\n" * 999),
    "a byte more": lambda backup: (backup / "blobs/files/file-1").write_bytes(b"one\n" * 1000 + b"!"),
    "a missing blob": lambda backup: (backup / "blobs/files/file-1").unlink(),
    "a link": _link_blob,
    "a linked folder": _link_folder,
    "a pipe": _pipe,
    "a path that climbs": _climb("files/../../../secret"),
    "a path that climbs at once": _climb("../secret"),
    "an absolute path": _climb("/etc/passwd"),
    "a blob twice": lambda backup: changed_manifest(backup, lambda it: it.update(blobs=[it["blobs"][0]] * 2)),  # type: ignore[index]
    "no manifest": lambda backup: (backup / "manifest.json").unlink(),
    "half a manifest": lambda backup: (backup / "manifest.json").write_bytes(b'{"version": "1'),
    "a manifest that is no object": lambda backup: (backup / "manifest.json").write_bytes(b"[]"),
    "a manifest of a later format": lambda backup: changed_manifest(backup, lambda it: it.update(format=2)),
    "a trigger": _change_database("CREATE TRIGGER t AFTER UPDATE ON files BEGIN DELETE FROM batches; END"),
    "a view": _change_database("CREATE VIEW v AS SELECT 1"),
    "a file id that climbs": _change_database("UPDATE files SET id = '../../secret' WHERE id = 'file-1'"),
    "a write that climbs": _change_database("INSERT INTO blob_writes (path, owner) VALUES ('../../secret', 'me')"),
    "a later version": _change_database("UPDATE alembic_version SET version_num = '9999'"),
    "no tables": _change_database("DROP TABLE alembic_version"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_backup_that_was_tampered_with_is_refused_and_touches_nothing(tmp_path: Path, how: str) -> None:
    data, inner = stocked(tmp_path / "data"), tmp_path / "in"
    inner.mkdir()
    back_up(data, inner / "backup")
    # Its blobs are links to the data folder's.
    shutil.copytree(inner / "backup", inner / "copy")
    HOSTILE[how](inner / "copy")
    before = content(data)
    with pytest.raises(UserError) as refused:
        put_back(inner / "copy", data, force=True)
    assert "\n" not in str(refused.value)
    assert content(data) == before
    with pytest.raises(UserError):
        put_back(inner / "copy", tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["lock"]


def test_a_scoring_that_changes_while_it_is_copied_is_copied_as_of_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = stocked(tmp_path / "data")
    note, table = data / SCORING / "job.json", data / SCORING / "table.csv"
    (data / f"scoring/scoring_{'b' * 32}").mkdir()
    (data / f"scoring/scoring_{'b' * 32}/incoming").write_text("half an upload")
    (data / SCORING / "job.json.part").write_text("half a note")
    left = ["", "a", "longer than before", "none"]

    async def changing(path: str, reading: Readable, writing: BinaryIO) -> Entry:
        if path.endswith("table.csv") and left:
            table.write_text(left.pop())
            note.write_text(f"with {table.read_text()}")
        return await copy_into(path, reading, writing)

    monkeypatch.setattr("gristmill.storage.care.scorings.copy_into", changing)
    back_up(data, tmp_path / "backup")
    put_back(tmp_path / "backup", tmp_path / "new")
    assert left == [] and (tmp_path / "new" / SCORING / "table.csv").read_text() == ""
    assert (tmp_path / "new" / SCORING / "job.json").read_text() == "with "
    assert len(list((tmp_path / "new/scoring").rglob("*"))) == 1 + 3 + 2


def test_what_is_restored_has_no_scorings_of_what_was_there(tmp_path: Path) -> None:
    data = stocked(tmp_path / "data")
    shutil.rmtree(data / "scoring")
    back_up(data, tmp_path / "backup")
    other = stocked(tmp_path / "other")
    put_back(tmp_path / "backup", other, force=True)
    assert content(other)["scorings"] == {}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../climbed", tarfile.REGTYPE),
        ("/climbed", tarfile.REGTYPE),
        (f"scoring_{'a' * 32}/../../climbed", tarfile.REGTYPE),
        (f"scoring_{'a' * 32}/.hidden", tarfile.REGTYPE),
        (f"scoring_{'b' * 32}", tarfile.SYMTYPE),
        (f"scoring_{'b' * 32}/table.csv", tarfile.SYMTYPE),
        (f"scoring_{'b' * 32}/table.csv", tarfile.LNKTYPE),
        (f"scoring_{'a' * 32}/job.json", tarfile.REGTYPE),
        (f"scoring_{'a' * 32}/job.json/below", tarfile.REGTYPE),
    ],
)
def test_scorings_that_no_backup_has_are_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    data = stocked(tmp_path / "data")
    back_up(data, tmp_path / "backup")
    (packed,) = (tmp_path / "backup").glob("scorings-*.tar")
    with tarfile.open(packed, "a") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, str(tmp_path / "data/lock")
        tar.addfile(member)
    changed_manifest(tmp_path / "backup", lambda it: it.update(scorings=_entry(packed.name, packed)))
    with pytest.raises(UserError, match="tampered with|not restored"):
        put_back(tmp_path / "backup", tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["lock"]
    assert not (tmp_path / "climbed").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_only_plain_files_of_a_tar_are_read(tmp_path: Path, kind: bytes) -> None:
    data = stocked(tmp_path / "data")
    back_up(data, tmp_path / "backup.tar")
    with tarfile.open(tmp_path / "backup.tar") as source, tarfile.open(tmp_path / "bad.tar", "w") as target:
        for member in source:
            if member.name.endswith("file-1"):
                member.type, member.linkname, member.size = kind, str(tmp_path / "data/lock"), 0
                target.addfile(member)
            else:
                target.addfile(member, source.extractfile(member))
        extra = tarfile.TarInfo("../climbed")
        extra.size = 3
        target.addfile(extra, io.BytesIO(b"bad"))
    with pytest.raises(UserError, match="file-1 is missing"):
        put_back(tmp_path / "bad.tar", tmp_path / "new")
    assert not (tmp_path / "climbed").exists()


def test_a_tar_cannot_claim_bytes_that_it_does_not_hold(tmp_path: Path) -> None:
    """Sparse members: a few bytes that would fill a disk."""
    data = stocked(tmp_path / "data")
    back_up(data, tmp_path / "backup.tar")
    with (
        tarfile.open(tmp_path / "backup.tar") as source,
        tarfile.open(tmp_path / "bad.tar", "w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in source:
            if member.name.endswith("file-1"):
                member.pax_headers = {"GNU.sparse.map": f"0,{member.size}", "GNU.sparse.size": str(member.size)}
            target.addfile(member, source.extractfile(member))
    with pytest.raises(UserError, match="file-1 is missing"):
        put_back(tmp_path / "bad.tar", tmp_path / "new")


@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.9])
def test_a_tar_that_is_cut_off_is_no_backup(tmp_path: Path, share: float) -> None:
    data = stocked(tmp_path / "data")
    back_up(data, tmp_path / "backup.tar")
    whole = (tmp_path / "backup.tar").read_bytes()
    (tmp_path / "part.tar").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="no (whole )?backup|part of one"):
        put_back(tmp_path / "part.tar", tmp_path / "new")
    with pytest.raises(UserError, match="exists already"):
        back_up(data, tmp_path / "backup.tar")
    assert (tmp_path / "backup.tar").read_bytes() == whole


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_backup_of_an_earlier_version_is_taken_restored_and_migrated_at_the_start(
    tmp_path: Path, revision: str
) -> None:
    data = tmp_path / "data"
    (data / "blobs/files").mkdir(parents=True)
    (data / "blobs/files/file-1").write_bytes(b"x" * 100)
    asyncio.run(database_of_version(data / "gristmill.db", revision))
    before = stored_at_first(data / "gristmill.db")
    back_up(data, tmp_path / "backup")
    put_back(tmp_path / "backup", tmp_path / "new")
    assert content(tmp_path / "new")["blobs"] == {"file-1": b"x" * 100}
    assert stored_at_first(tmp_path / "new/gristmill.db") == before


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", folder]).returncode:
        pytest.skip("run as root to run this: it mounts a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
@pytest.mark.parametrize(("size", "rows"), [(10, 3000), (600_000, 1)])
def test_a_disk_that_is_too_small_is_said_and_left_as_it_was(
    tmp_path: Path, full_disk: Path, name: str, size: int, rows: int
) -> None:
    data = stocked(tmp_path / "data")
    back_up(data, full_disk / "before")
    left = {path for path in full_disk.rglob("*") if path.is_file()}

    async def grow(storage: Storage) -> None:
        await add_file(storage, "file-4", os.urandom(size))
        await add_batch(storage, "batch_3", rows, rows)

    asyncio.run(use(data, grow))
    for target in (full_disk / "before", full_disk / name):
        with pytest.raises(UserError, match="not made: .*([Ss]pace|full)"):
            back_up(data, target)
        assert {path for path in full_disk.rglob("*") if path.is_file()} == left
    put_back(full_disk / "before", tmp_path / "new")
    with pytest.raises(UserError, match="not restored: .*[Ss]pace"):
        back_up(data, tmp_path / "large")
        put_back(tmp_path / "large", full_disk / "data")
    assert [path.name for path in (full_disk / "data").iterdir()] == ["lock"]
