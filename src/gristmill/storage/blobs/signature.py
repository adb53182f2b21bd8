"""URLs signed for S3 (AWS Signature Version 4), for the requests that obstore does not make."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_VALID_SECONDS = 300


class Signer(NamedTuple):
    """``token`` is that of a session, if the key is of one."""

    key: str
    secret: str
    token: str | None
    region: str

    def url(self, method: str, url: str, query: dict[str, str], now: datetime | None = None) -> str:
        """``url`` is without a query, its path quoted."""
        now = now or datetime.now(UTC)
        day, moment = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
        scope = f"{day}/{self.region}/s3/aws4_request"
        signed = query | {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self.key}/{scope}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(_VALID_SECONDS),
            "X-Amz-SignedHeaders": "host",
        }
        if self.token is not None:
            signed["X-Amz-Security-Token"] = self.token
        parts = urlsplit(url)
        text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(signed.items()))
        canonical = "\n".join((method, parts.path or "/", text, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"))
        to_sign = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = f"AWS4{self.secret}".encode()
        for step in scope.split("/"):
            key = hmac.digest(key, step.encode(), "sha256")
        return f"{url}?{text}&X-Amz-Signature={hmac.digest(key, to_sign.encode(), 'sha256').hex()}"
