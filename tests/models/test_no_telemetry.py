from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from gristmill.models.extra import require
for package in ("openvino", "openvino_tokenizers", "openvino_genai"):
    require(package)
assert sys.modules["openvino_telemetry"] is None
"""


def test_openvino_reports_to_nobody_and_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env={"HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
