from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from server_process import ServerProcess

_HERE = Path(__file__).parent


@pytest.mark.skipif(not shutil.which("node") or not shutil.which("npm"), reason="Node.js and npm are not installed")
def test_the_official_node_client_does_every_flow(server: ServerProcess) -> None:
    if not (_HERE / "node_modules" / "openai").exists():
        _call("npm", "ci", "--silent", "--no-audit", "--no-fund")
    assert "all flows passed" in _call("node", "flows.mjs", server.base_url)


def _call(*command: str) -> str:
    done = subprocess.run(command, cwd=_HERE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
