"""What deploy/ says fits what the server takes."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from gristmill.cli.main import app
from gristmill.user_error import UserError

PROJECT = Path(__file__).parent.parent
DEPLOY = PROJECT / "deploy"
UNIT = DEPLOY / "systemd" / "gristmill.service"
COMPOSE = sorted((DEPLOY / "compose").glob("*.yaml"))
#: Read by other means than an option.
_OTHERS = {"GRISTMILL_CACHE"}


def variables(command: Any) -> Iterator[str]:
    for each in getattr(command, "commands", {}).values():
        yield from variables(each)
    for option in command.params:
        envvar = option.envvar or ()
        yield from [envvar] if isinstance(envvar, str) else envvar


def test_every_variable_that_is_set_is_one_of_a_setting() -> None:
    known = set(variables(typer.main.get_command(app))) | _OTHERS
    for path in [*DEPLOY.rglob("*"), PROJECT / "docs/how-to/container.md", PROJECT / "docs/how-to/run-as-a-service.md"]:
        if path.is_file():
            told = set(re.findall(r"\bGRISTMILL_[A-Z_]+", path.read_text())) - {"GRISTMILL_API_KEY"}
            assert told <= known, f"{path.relative_to(PROJECT)} tells of {told - known}"


def test_the_unit_gives_a_stop_more_than_what_is_in_flight_has() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.read(UNIT)
    assert unit["Service"]["Type"] == "notify"
    assert unit["Service"]["Restart"] == "on-failure"
    assert unit["Service"]["RestartPreventExitStatus"] == str(UserError.exit_code)
    assert int(unit["Service"]["TimeoutStopSec"].removesuffix("s")) > 60


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: scripts/install-test-tools.sh"
)
def test_systemd_reads_every_line_of_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    # The program is not installed here.
    unit.write_text(re.sub("^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text(), flags=re.M))
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True).stderr
    assert not [line for line in said.splitlines() if unit.name in line], said


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.stem)
def test_a_compose_file_starts_the_server_once_its_engine_answers_and_keeps_its_data(path: Path) -> None:
    compose = yaml.safe_load(path.read_text())
    server = compose["services"]["gristmill"]
    build = server["build"]
    context = (path.parent / build["context"]).resolve()
    assert context == PROJECT and (context / build["dockerfile"]).is_file()
    assert server["volumes"] == ["data:/data"] and "data" in compose["volumes"]
    # Docker gives a container 10 seconds.
    assert int(server["stop_grace_period"].removesuffix("s")) > 60
    for name, condition in server["depends_on"].items():
        assert condition["condition"] in ("service_healthy", "service_completed_successfully")
        if condition["condition"] == "service_healthy":
            assert "healthcheck" in compose["services"][name]


def test_what_the_image_is_made_of_is_there() -> None:
    text = (DEPLOY / "container" / "Containerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M)
    names = " ".join(copied).split()
    kept = (DEPLOY / "container" / "Containerfile.dockerignore").read_text().splitlines()
    for name in names:
        assert (PROJECT / name).exists() and f"!{name}" in kept
