"""A backup that was taken while a batch ran: the server that starts on it brings the batch to its end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from test_stop_and_resume import answered, submit
from watched_batch import Journal, peek, wait_until

from requests_jsonl import chat_file
from server_process import ServerProcess


def admin(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gristmill", "admin", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_batch_goes_on_from_a_backup_with_every_row_once_and_none_that_was_done_asked_again(tmp_path: Path) -> None:
    journal, data = Journal(tmp_path / "journal"), tmp_path / "data"
    journaled = ("-O", f"journal={journal.path}", "-O", "slots=8")
    with ServerProcess(data, *journaled, "-O", "latency=0.5") as server:
        batch_id = submit(server.client(), chat_file(600))
        wait_until(lambda: peek(data).counted > 20, "some rows")
        taken = admin("backup", tmp_path / "backup", "--data", data)
        assert taken.returncode == 0, taken.stderr
        assert peek(data).counted < 600, "the backup came too late to show anything"
        refused = admin("restore", tmp_path / "backup", "--data", data, "--force")
        assert refused.returncode == 2 and "in use by another Gristmill" in refused.stderr
        server.kill()
    (manifest,) = (tmp_path / "backup").glob("manifest.json")
    database = tmp_path / "backup" / json.loads(manifest.read_bytes())["database"]["path"]
    (tmp_path / "as_backed_up").mkdir()
    (tmp_path / "as_backed_up/gristmill.db").write_bytes(database.read_bytes())
    done = peek(tmp_path / "as_backed_up").counted
    assert 20 < done < 600
    # What is in the data folder by now is lost.
    restored = admin("restore", tmp_path / "backup", "--data", data, "--force")
    assert restored.returncode == 0, restored.stderr
    before = journal.size()
    with ServerProcess(data, *journaled) as server:
        assert answered(server.client(), batch_id) == [f"row-{row}" for row in range(600)]
    assert len(journal.rows(before)) == 600 - done
