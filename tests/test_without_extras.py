"""Without the packages of any extra, tables are scored by engines that need none, and the server starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

for missing in ("numpy", "scipy", "sklearn", "openvino", "xllamacpp", "pandas"):
    sys.modules[missing] = None

import gristmill
import gristmill.api.app
import gristmill.scoring.jobs.worker
import polars
from gristmill.user_error import UserError

table = polars.DataFrame({"name": ["Ada", "Ben"]})
scored = gristmill.score(table, "Score the miller.", range(11), on=gristmill.EngineSettings("simulated"))
assert scored.frame["score"].null_count() == 0
try:
    gristmill.rank(table, "Score the miller.", range(11), top=1, on=gristmill.EngineSettings("simulated"))
except UserError as error:
    assert "pip install 'gristmill[score]'" in str(error), error
    print("told")
"""


def test_scoring_and_the_server_need_no_extra_and_a_ranking_says_which_it_needs(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=os.environ | {"HOME": str(tmp_path)}
    )
    assert done.stdout.strip() == "told", done.stderr
