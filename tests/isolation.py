"""No test sees the settings or writes into the folders of the person who runs it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

#: Processes that share the tests have their home from the first one, which remembers here what it had.
_REMEMBERED = "TESTS_CACHE_FOLDER"
_CACHE = Path(os.environ.get(_REMEMBERED) or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
#: Where ``make test-engines`` builds real servers.
TEST_ENGINES = _CACHE / "gristmill-test-engines"
_GRISTMILL_CACHE = Path(os.environ.get("GRISTMILL_CACHE") or _CACHE / "gristmill")
_NPM_SETTINGS = Path.home() / ".npmrc"

_PREFIXES = ("GRISTMILL_", "OPENAI_", "OLLAMA_", "XDG_", "HF_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")


def isolate() -> Path:
    """For this process and all that it starts: no settings, and an empty home; the folder to remove in the end.

    Pulled models are read where they are. What the engine made of them is there as well, so that it need not be made
    again, but under names of its own: what tests write stays in their folder.
    """
    os.environ[_REMEMBERED] = str(_CACHE)
    for name in list(os.environ):
        if name.upper().startswith(_PREFIXES) or name.upper().endswith("_PROXY"):
            del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix="gristmill-tests-"))
    os.environ["HOME"] = str(home)
    os.environ["GRISTMILL_CACHE"] = str(home / "cache")
    (home / "cache").mkdir()
    if (_GRISTMILL_CACHE / "models").is_dir():
        (home / "cache" / "models").symlink_to(_GRISTMILL_CACHE / "models")
    for made in ("openvino", "kernels", "precision"):
        _link(_GRISTMILL_CACHE / made, home / "cache" / made)
    # Tests with a cache of their own have this one in it, so that what is measured is measured once for all.
    (home / "cache" / "precision").mkdir(mode=0o700, exist_ok=True)
    if _NPM_SETTINGS.is_file():
        os.environ["NPM_CONFIG_USERCONFIG"] = str(_NPM_SETTINGS)
    return home


def _link(source: Path, target: Path) -> None:
    """A copy that takes no room. Nothing, where that is not possible: on another disk, or while it is being written."""
    try:
        if source.is_dir():
            shutil.copytree(source, target, copy_function=os.link, symlinks=True)
    except (OSError, shutil.Error):
        shutil.rmtree(target, ignore_errors=True)
