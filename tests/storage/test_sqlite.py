"""SQLite keeps the contract of a metadata store."""

from __future__ import annotations

from pathlib import Path

from metadata_contract import MetadataContract, counts, file, owned_batch, upload

from gristmill.storage.protocol import MetadataStore
from gristmill.storage.records import PartRecord
from gristmill.storage.row_records import Result
from gristmill.storage.sql.store import SqlMetadataStore


class TestSqlite(MetadataContract):
    def open(self, folder: Path) -> MetadataStore:
        return SqlMetadataStore.at(f"sqlite:///{folder / 'test.db'}")

    def test_a_copy_is_of_one_moment_and_names_its_blobs(self, tmp_path: Path) -> None:
        (tmp_path / "copied").mkdir()

        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store)
            await store.rows.commit(lease, [Result(1, True, b"one")])
            await store.files.add(file("file-a", bytes=7))
            await store.uploads.add(upload("upload_1"))
            await store.uploads.add_part(PartRecord("part_1", "upload_1", 5, 1))
            named = await store.upkeep.copy_to(tmp_path / "copied" / "test.db", lambda done, total: None)
            assert named == [("files/file-a", 7), ("parts/part_1", 5)] == await store.upkeep.named_blobs()
            await store.rows.commit(lease, [Result(2, True, b"two")])
            assert await store.upkeep.disagreements() == [] == await store.upkeep.integrity()

        async def copy(store: MetadataStore) -> None:
            assert await counts(store) == (1, 0)
            assert await store.rows.succeeded(1, 0, 10) == [(1, b"one")]

        self.tell(tmp_path, story)
        self.tell(tmp_path / "copied", copy)

    def test_space_that_is_free_inside_is_given_back_in_steps(self, tmp_path: Path) -> None:
        async def story(store: MetadataStore) -> None:
            lease = await owned_batch(store, 400)
            await store.rows.commit(lease, [Result(line, True, bytes(10_000)) for line in range(1, 401)])
            large = await store.upkeep.sizes()
            assert large.bytes > 4_000_000 and await store.upkeep.give_back(0, 2**30) == 0
            await store.rows.clear(lease)
            assert await store.upkeep.give_back(2**30, 2**30) == 0
            assert 0 < await store.upkeep.give_back(0, 1_000_000) < 1_050_000
            while await store.upkeep.give_back(200_000, 1_000_000):
                pass
            small = await store.upkeep.sizes()
            assert 0 < small.free < 200_000 + small.page and small.bytes < 700_000
            assert await store.upkeep.integrity() == []

        self.tell(tmp_path, story)
