"""What a browser is told about every answer of the dashboard."""

from __future__ import annotations

#: Nothing inline, nothing from elsewhere, no frames; scripts, styles and pictures are files of ``/assets``.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
#: Of every answer of this package. (A referrer policy of "no-referrer" would make browsers send forms with the origin
#: "null", which cannot be told from somebody else's page.)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
#: Of a page that is a file to keep: it holds its own style, and no script ever runs in it.
COPY_HEADERS = {
    **SECURITY_HEADERS,
    "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "cache-control": "no-store",
}
