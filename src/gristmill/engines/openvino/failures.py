"""What a request is answered when something went wrong with it in the worker: whatever it was, it is that request's."""

from __future__ import annotations

import traceback

import msgspec

from gristmill.engines.openvino.frames import Failed
from gristmill.engines.protocol import EngineError, ErrorKind

#: Libraries repeat what they were given; no more of it than this goes into an error.
_REASON_CHARS = 500


def failed_by(request_id: int, error: BaseException) -> Failed:
    """A request that cannot be nested or encoded as it is will not get better; what we did not foresee might. (A panic
    of llguidance is no Exception.)"""
    if isinstance(error, EngineError):
        return Failed(request_id, error.kind, error.message, error.status, error.param, error.code)
    if isinstance(error, RecursionError):
        message = "The request is nested too deeply."
        return Failed(request_id, ErrorKind.INVALID_REQUEST, message, 400, None, "invalid_value")
    if isinstance(error, msgspec.DecodeError):
        message = f"The embedded engine cannot read this request: {error}."
        return Failed(request_id, ErrorKind.INVALID_REQUEST, message, 400, None, "invalid_value")
    traceback.print_exception(error, limit=-3)
    message = f"The embedded engine failed on this request: {type(error).__name__}: {error}"[:_REASON_CHARS]
    return Failed(request_id, ErrorKind.INTERRUPTED, message, 500, None, None)
