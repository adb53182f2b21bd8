"""A real server process on a real port, for tests: started, watched, killed and started again."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import openai


class ServerProcess:
    """``gristmill serve --engine simulated`` over ``data``; the same folder may be served again after a kill."""

    program = (sys.executable, "-m", "gristmill")

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self.base_url = ""
        self.log: list[str] = []

    def start(self) -> ServerProcess:
        self.spawn()
        self.wait_until_ready()
        return self

    def spawn(self, stdout: IO[str] | None = None) -> None:
        """Start the process without waiting for it: so that it can be killed while it starts."""
        command = [*self.program, "serve", "--engine", "simulated", "--port", "0"]
        command += ["--data", str(self.data), *self._options]
        self._process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)

    def wait_until_ready(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line)
            if line.startswith("Gristmill is ready: "):
                self.base_url = line.split()[-1]
                break
        else:
            raise AssertionError(f"the server did not start: {''.join(self.log)}")
        # Keep reading, or a full pipe would stop the server.
        threading.Thread(target=self.log.extend, args=(self._process.stderr,), daemon=True).start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: nothing gets a chance to tidy up."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and wait; the exit code."""
        return self._end(signal.SIGTERM)

    def client(self, **options: object) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base_url, api_key="unused", **options)  # type: ignore[arg-type]

    def __enter__(self) -> ServerProcess:
        return self if self.alive() else self.start()

    def __exit__(self, *_: object) -> None:
        if self.alive():
            self.kill()

    def _end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=60)
