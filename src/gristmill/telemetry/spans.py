"""OpenTelemetry spans, sent to a collector by OTLP over HTTP. The extra ``otel``; nothing of it is loaded without.

Whatever the collector does, whoever ends a span never waits: spans go into the SDK's bounded queue, which a thread of
its own empties; what does not fit is lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gristmill import __version__
from gristmill.extras import require
from gristmill.telemetry.log import get_logger
from gristmill.telemetry.metrics import SPANS
from gristmill.user_error import UserError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

log = get_logger(__name__)

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]

#: Of the rows; a batch of a million has ten thousand spans then.
USUAL_SHARE = 0.01
#: Seconds in which what is left may be sent at the end of the process.
_LAST_SECONDS = 3.0
#: A collector that is away is told of once in so many seconds.
_TELL_SECONDS = 600.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class SpanSettings(NamedTuple):
    """``url`` is the collector's, without ``/v1/traces``; None: the standard variables say (``OTEL_...``). ``rows`` is
    the share of them that get a span."""

    url: str | None = None
    rows: float = USUAL_SHARE


def wanted(settings: SpanSettings, environment: Mapping[str, str]) -> bool:
    """Whether there are to be spans. Raises UserError for a collector or a share that cannot be meant."""
    if not 0 <= settings.rows <= 1:
        raise UserError(f"{settings.rows} is no share of the rows: use a number from 0 to 1.")
    if settings.url is not None:
        if not settings.url.startswith(("http://", "https://")):
            raise UserError(f"'{settings.url}' is no address of a collector: use one such as http://127.0.0.1:4318.")
        return True
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() not in ("otlp", ""):
        return False
    return any(environment.get(name) for name in _ENDPOINTS)


class SpanId(NamedTuple):
    """Of a span that is known beforehand: the same for the same ``name``, also in another process."""

    trace: int
    span: int

    @classmethod
    def of(cls, name: str) -> SpanId:
        digest = hashlib.blake2b(name.encode(), digest_size=24).digest()
        # Zero would be no id.
        return cls(int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:]) or 1)


class Spans:
    """Make it where ``wanted`` says so; ``close`` it. Raises UserError where the extra is not installed."""

    def __init__(self, settings: SpanSettings, environment: Mapping[str, str]) -> None:
        sdk, trace = require("opentelemetry.sdk.trace", "otel"), require("opentelemetry.trace", "otel")
        export = require("opentelemetry.sdk.trace.export", "otel")
        http = require("opentelemetry.exporter.otlp.proto.http.trace_exporter", "otel")
        resources = require("opentelemetry.sdk.resources", "otel")
        if any(environment.get(name) == "grpc" for name in _PROTOCOLS):
            log.warning("spans are sent by OTLP over HTTP: the collector's port for gRPC, 4317, does not take them")
        named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
        about = {"service.version": __version__} | ({} if named else {"service.name": "gristmill"})
        # The exporter repeats itself at every failure; ``_Watched`` tells once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        endpoint = {} if settings.url is None else {"endpoint": f"{settings.url.rstrip('/')}/v1/traces"}
        self._api = trace
        self._ids = _Ids()
        self._provider = sdk.TracerProvider(
            resource=resources.Resource.create(about), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(export.BatchSpanProcessor(_Watched(http.OTLPSpanExporter(**endpoint))))
        self._tracer = self._provider.get_tracer("gristmill", __version__)
        self._threshold = round(settings.rows * 2**64)

    def samples(self, key: str) -> bool:
        """Whether what is called ``key`` gets a span: always the same for the same."""
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest) < self._threshold

    def record(
        self,
        name: str,
        began: int,
        ended: int,
        attributes: Attributes,
        *,
        own: SpanId | None = None,
        parent: SpanId | None = None,
        failed: bool = False,
        remote: bool = False,
    ) -> None:
        """A span that has ended; times in Unix nanoseconds. ``own`` for one whose children know it, ``remote`` for a
        call of another process. It never raises: the work is done, whatever becomes of its span."""
        try:
            self._ids.next = own
            span = self._tracer.start_span(
                name,
                context=self._context(parent),
                kind=self._api.SpanKind.CLIENT if remote else self._api.SpanKind.INTERNAL,
                attributes=attributes,
                start_time=began,
            )
            if failed:
                span.set_status(self._api.StatusCode.ERROR)
            span.end(max(began, ended))
        except Exception as error:
            log.warning("a span could not be recorded", exc_info=error)
        finally:
            self._ids.next = None

    async def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _LAST_SECONDS)

    def _context(self, parent: SpanId | None) -> Any:
        context = require("opentelemetry.context", "otel").Context()
        if parent is None:
            return context
        flags = self._api.TraceFlags(self._api.TraceFlags.SAMPLED)
        known = self._api.SpanContext(parent.trace, parent.span, is_remote=True, trace_flags=flags)
        return self._api.set_span_in_context(self._api.NonRecordingSpan(known), context)


class _Ids:
    """Ids at random, but for the span that is told its own."""

    def __init__(self) -> None:
        self._random = require("opentelemetry.sdk.trace.id_generator", "otel").RandomIdGenerator()
        self.next: SpanId | None = None

    def generate_span_id(self) -> int:
        return self.next.span if self.next else int(self._random.generate_span_id())

    def generate_trace_id(self) -> int:
        return self.next.trace if self.next else int(self._random.generate_trace_id())

    def is_trace_id_random(self) -> bool:
        return False


class _Watched:
    """The exporter, counted, and told of in the log when spans are lost. Its thread calls this."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._told_at = float("-inf")

    def export(self, spans: Sequence[ReadableSpan]) -> Any:
        result = self._exporter.export(spans)
        sent = result.name == "SUCCESS"
        SPANS["sent" if sent else "lost"].inc(len(spans))
        if not sent and time.monotonic() - self._told_at > _TELL_SECONDS:
            self._told_at = time.monotonic()
            log.warning("spans are lost: the collector does not take them", spans=len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))
