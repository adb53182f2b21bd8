from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from gristmill.extras import require
for package in ("openvino", "openvino_tokenizers", "openvino_genai"):
    require(package)
assert "openvino_telemetry" not in sys.modules
import openvino_telemetry  # whoever wants it can have it
"""

LOADING = """
import sys
from pathlib import Path
from gristmill.engines.embedded.openvino.paged_model import PagedModel
from gristmill.engines.embedded.openvino.prepare import prepare
from gristmill.engines.embedded.openvino.vocabulary import ModelVocabulary
from gristmill.models.locate import locate
folder = prepare(locate(sys.argv[1]), "f16").folder
ModelVocabulary(folder).encode("text", True)
PagedModel(folder, 2**26)
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
"""


def test_openvino_reports_to_nobody_and_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=True,
        env={"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert list(tmp_path.iterdir()) == []


def test_nor_does_it_when_a_model_is_loaded(pulled_model: str) -> None:
    subprocess.run([sys.executable, "-c", LOADING, pulled_model], check=True)
