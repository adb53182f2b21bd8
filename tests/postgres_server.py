"""A real PostgreSQL server on a free loopback port, for tests: started, restarted, killed, and given databases."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

MISSING = "PostgreSQL or psycopg is not installed: scripts/install-test-tools.sh and pip install 'gristmill[postgres]'"
#: Of the user that the tests are, in all databases.
PASSWORD = "test-password"


def programs() -> Path | None:
    """The folder of the newest ``postgres`` and its ``initdb``."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    anywhere = shutil.which("postgres")
    return Path(anywhere).resolve().parent if anywhere else None


class PostgresServer:
    """Nothing it stores outlives the test session; it does not wait for the disk."""

    def __init__(self, programs: Path, copy_of: PostgresServer | None = None) -> None:
        """``copy_of``: as a standby that follows that one."""
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="gristmill-postgres-"))
        # Not as root: it refuses to run as root.
        self._user = "postgres" if os.getuid() == 0 else None
        self._numbers = itertools.count(1)
        if self._user:
            owner = pwd.getpwnam(self._user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        if copy_of is None:
            (self.folder / "password").write_text(PASSWORD)
            command = [programs / "initdb", "-D", self._data, "-U", "tests", "--auth=scram-sha-256", "--no-sync"]
            command += ["-E", "UTF8", "--locale=C.UTF-8", f"--pwfile={self.folder / 'password'}"]
        else:
            command = [programs / "pg_basebackup", "-D", self._data, "-R", "-c", "fast", "--no-sync"]
            command += ["-d", copy_of.url("postgres")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self.as_user())  # type: ignore[call-overload]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def as_user(self) -> dict[str, object]:
        """For ``subprocess``: programs of this kind do not run as root."""
        only = {"user": self._user, "group": self._user, "extra_groups": []} if self._user else {}
        return only | {"cwd": self.folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.folder, "fsync": "off",
            "full_page_writes": "off", "max_connections": 60, "shared_buffers": "32MB", "max_wal_size": "256MB",
        }  # fmt: skip
        command: list[str | Path] = [self._programs / "postgres", "-D", self._data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        deadline = time.monotonic() + 60
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self.as_user())  # type: ignore[call-overload]
            while not self._answers():
                if self._process.poll() is not None:
                    # After a kill, what is left of the old server holds its memory for a moment.
                    assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2_000:]
                    time.sleep(0.1)
                    self._process = subprocess.Popen(command, stdout=log, stderr=log, **self.as_user())  # type: ignore[call-overload]
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def _answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
            return True
        return False

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT is its fast shutdown, which ends all connections; SIGKILL is a crash."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(timeout=60)

    def suspend(self) -> None:
        """All of its processes: connections stay, and nobody answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        assert self._process is not None
        # First the one that makes the others.
        self._process.send_signal(number)
        for pid in _children(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def restart(self, how: int = signal.SIGINT) -> None:
        self.stop(how)
        self.start()

    def url(self, database: str, user: str = "tests", password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """As the superuser, outside any transaction."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def new_database(self, template: str = "template1") -> str:
        """Its URL."""
        name = f"test_{next(self._numbers)}_{secrets.token_hex(4)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def standby(self) -> PostgresServer:
        return PostgresServer(self._programs, copy_of=self)

    def remove(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


def _children(of: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == of:
                found.append(int(path.parent.name))
    return found
