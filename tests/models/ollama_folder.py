"""A folder of models as Ollama writes it: manifests and blobs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

MEDIA = "application/vnd.ollama.image."


class OllamaFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs").mkdir(parents=True)

    def blob(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.blob_path(f"sha256:{digest}").write_bytes(content)
        return f"sha256:{digest}"

    def blob_path(self, digest: str) -> Path:
        return self.path / "blobs" / digest.replace(":", "-")

    def manifest_path(self, name: str) -> Path:
        return self.path / "manifests" / name

    def add(self, name: str, layers: list[tuple[str, bytes]], **config: Any) -> list[dict[str, Any]]:
        """``name`` as a path: registry.ollama.ai/library/m/latest. A layer is the end of its media type, and its
        content. Returns what the manifest says of the layers."""
        listed = [
            {"mediaType": MEDIA + kind, "digest": self.blob(content), "size": len(content)} for kind, content in layers
        ]
        written = json.dumps({"model_format": "gguf", "model_family": "llama", "file_type": "F32", **config}).encode()
        noted = {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": self.blob(written),
            "size": len(written),
        }
        self.write_manifest(name, {"schemaVersion": 2, "config": noted, "layers": listed})
        return listed

    def write_manifest(self, name: str, content: Any) -> None:
        path = self.manifest_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content) if not isinstance(content, str) else content)
