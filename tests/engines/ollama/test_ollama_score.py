"""How scores are asked of Ollama."""

from __future__ import annotations

from pathlib import Path

import pytest
from ollama_replay import MODEL, ReplayServer

from gristmill.batches.host import HostSettings
from gristmill.engines.registry import EngineSettings
from gristmill.scoring.local import LocalBackend
from gristmill.scoring.prompt import GENERATE, TOP_LOGPROBS, TOP_LOGPROBS_BEGUN
from gristmill.scoring.questionnaire import ScoreOptions, choose_method
from gristmill.storage.open import StorageSettings


@pytest.mark.parametrize("leaves_open", [True, False])
def test_labels_are_begun_where_the_models_template_leaves_an_answer_open(server: ReplayServer, leaves_open: bool):
    server.leaves_open = leaves_open
    backend = LocalBackend(HostSettings(StorageSettings(Path()), EngineSettings("ollama", MODEL, server.url)))
    # Without being asked for labels there is no need to know.
    assert choose_method(ScoreOptions(), backend) is GENERATE
    assert server.seen == []
    expected = TOP_LOGPROBS_BEGUN if leaves_open else TOP_LOGPROBS
    assert choose_method(ScoreOptions(method="labels"), backend) is expected
