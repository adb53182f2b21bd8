"""Blobs in an object store, against a real one."""

from __future__ import annotations

from pathlib import Path

import pytest
from blob_contract import BlobContract

from gristmill.storage.blob_store import BlobStore
from gristmill.storage.blobs.objects import ObjectBlobStore
from s3_server import BUCKET, S3Server


class TestS3Blobs(BlobContract):
    @pytest.fixture(autouse=True)
    def in_the_environment(self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in s3_server.environment().items():
            monkeypatch.setenv(name, value)

    def open(self, folder: Path) -> BlobStore:
        return ObjectBlobStore(f"s3://{BUCKET}/{folder.name}/of a test")
