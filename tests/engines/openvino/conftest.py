from __future__ import annotations

import pytest

from gristmill.engines.openvino.engine import DEFAULT_MODEL
from gristmill.models.locate import locate
from gristmill.user_error import UserError


@pytest.fixture(scope="session")
def pulled_model() -> str:
    """The name of the model these tests use; skips when it is not on this machine."""
    pytest.importorskip("openvino_genai", reason="the extra 'embedded' is not installed")
    try:
        return locate(DEFAULT_MODEL).name
    except UserError as error:
        pytest.skip(str(error))
