"""Spans of real batches, as a collector gets them; and what a collector may do to a batch: nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gristmill.batches.host import BatchHost, HostSettings
from gristmill.engines.registry import EngineSettings
from gristmill.storage.open import StorageSettings
from gristmill.storage.records import FileRecord, file_blob
from gristmill.telemetry.spans import SpanId, SpanSettings, wanted
from gristmill.user_error import UserError
from gristmill.wire.batch import Batch, CreateBatchRequest
from requests_jsonl import CHAT, chat_line, jsonl

pytest.importorskip("opentelemetry.sdk.trace", reason="the extra 'otel' is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

WORD = "CANARY"
ROWS = [chat_line(f"{WORD}-{index}", f"Rate {WORD} {index}.", user=WORD) for index in range(200)]
#: The simulated engine refuses this one.
BAD = chat_line(f"{WORD}-bad", f"Rate {WORD}.", top_k=5)


class Collector:
    """Takes spans over HTTP, or does worse."""

    def __init__(self, manner: str = "takes") -> None:
        self.bodies: list[bytes] = []
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
                outer.bodies.append(body)
                if manner == "hangs":
                    outer.release.wait(60)
                self.send_response({"takes": 200, "refuses": 400}.get(manner, 503))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        if manner == "is away":
            self._server.shutdown()
            self._server.server_close()

    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, Any]:
        request = ExportTraceServiceRequest.FromString(self.bodies[0])
        return values(request.resource_spans[0].resource.attributes)


def values(attributes: Any) -> dict[str, Any]:
    found = {}
    for each in attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found


def run_batch(folder: Path, settings: SpanSettings | None, lines: list[dict[str, Any]]) -> Batch:
    async def chunks() -> AsyncIterator[bytes]:
        yield jsonl(lines)

    async def main() -> Batch:
        host = BatchHost(HostSettings(StorageSettings(folder), EngineSettings("simulated"), spans=settings))
        await host.start()
        try:
            async with asyncio.timeout(60):
                size = await host.storage.blobs.write(file_blob("file-1"), chunks())
                await host.storage.metadata.files.add(FileRecord("file-1", size, 1, "in.jsonl", "batch"))
                created = await host.batches.create(CreateBatchRequest("file-1", CHAT, "24h", metadata=None))
                while (batch := await host.batches.get(created.id)).status not in ("completed", "failed"):
                    await asyncio.sleep(0.01)
                return batch
        finally:
            await host.stop()

    return asyncio.run(main())


@pytest.fixture
def collector() -> Iterator[Collector]:
    yield Collector()


def test_a_batch_is_a_trace_of_itself_and_its_rows(tmp_path: Path, collector: Collector) -> None:
    batch = run_batch(tmp_path, SpanSettings(collector.url, rows=1.0), [*ROWS, BAD])
    spans = collector.spans()
    whole = next(span for span in spans if span.name == "batch simulated")
    rows = [span for span in spans if span.name == "chat simulated"]
    assert len(rows) == 201 and len(spans) == 202
    known = SpanId.of(batch.id)
    assert {int.from_bytes(span.trace_id) for span in spans} == {known.trace}
    assert int.from_bytes(whole.span_id) == known.span and not whole.parent_span_id
    assert {span.parent_span_id for span in rows} == {whole.span_id}
    told = values(whole.attributes)
    assert batch.usage is not None
    assert told == told | {
        "gen_ai.operation.name": "batch", "gen_ai.provider.name": "simulated", "gen_ai.request.model": "simulated",
        "gen_ai.usage.input_tokens": batch.usage.input_tokens,
        "gen_ai.usage.cache_read.input_tokens": batch.usage.input_tokens_details.cached_tokens,
        "gen_ai.usage.output_tokens": batch.usage.output_tokens, "gristmill.batch.id": batch.id,
        "gristmill.batch.status": "completed", "gristmill.batch.rows": 201, "gristmill.batch.rows_succeeded": 200,
        "gristmill.batch.rows_failed": 1,
    }  # fmt: skip
    by_line = {values(span.attributes)["gristmill.row.line"]: span for span in rows}
    good, bad = by_line[1], by_line[201]
    assert (good.kind, whole.kind) == (Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_INTERNAL)
    of_row = values(good.attributes)
    assert of_row["gen_ai.operation.name"] == "chat" and of_row["gen_ai.usage.input_tokens"] > 0
    assert (
        of_row["gen_ai.response.finish_reasons"] in (["stop"], ["length"])
        and good.status.code == Status.STATUS_CODE_UNSET
    )
    assert bad.status.code == Status.STATUS_CODE_ERROR and values(bad.attributes)["error.type"] == "400"
    assert whole.start_time_unix_nano <= good.start_time_unix_nano <= good.end_time_unix_nano
    assert collector.resource()["service.name"] == "gristmill"
    assert all(WORD.encode() not in body for body in collector.bodies)


def test_the_same_rows_are_sampled_each_time(tmp_path: Path) -> None:
    sampled = []
    for name in ("one", "two"):
        collector = Collector()
        run_batch(tmp_path / name, SpanSettings(collector.url, rows=0.2), ROWS)
        lines = [values(span.attributes).get("gristmill.row.line") for span in collector.spans()]
        sampled.append(sorted(line for line in lines if line))
    assert sampled[0] == sampled[1] and 15 <= len(sampled[0]) <= 70


def test_a_batch_that_is_rejected_is_a_span_that_failed(tmp_path: Path, collector: Collector) -> None:
    run_batch(tmp_path, SpanSettings(collector.url), [ROWS[0], ROWS[0]])
    (whole,) = collector.spans()
    assert whole.status.code == Status.STATUS_CODE_ERROR and WORD.encode() not in collector.bodies[0]
    assert values(whole.attributes)["gristmill.batch.status"] == "failed"


@pytest.mark.parametrize("manner", ["is away", "refuses", "is busy", "hangs"])
def test_whatever_the_collector_does_the_batch_completes_and_the_host_stops(tmp_path: Path, manner: str) -> None:
    collector = Collector(manner)
    try:
        batch = run_batch(tmp_path, SpanSettings(collector.url, rows=1.0), ROWS)
    finally:
        collector.release.set()
    assert batch.status == "completed" and batch.request_counts.completed == len(ROWS)
    assert bool(collector.bodies) == (manner != "is away")


OFF = """
import sys
import gristmill.api.server
import gristmill.batches.host
unwanted = ("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf")
found = [name for name in sys.modules if name.startswith(unwanted)]
print(found)
"""


def test_without_spans_nothing_of_opentelemetry_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        (None, {}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ("http://127.0.0.1:4318", {}, True),
    ],
)
def test_when_spans_are_wanted(url: str | None, environment: Mapping[str, str], expected: bool) -> None:
    assert wanted(SpanSettings(url), environment) is expected


def test_variables_that_are_wrong_or_for_others_do_not_stop_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-5")
    assert run_batch(tmp_path, SpanSettings(), ROWS[:3]).status == "completed"
    assert "no spans are sent" in capsys.readouterr().err
    with pytest.raises(UserError, match="check OTEL_"):
        run_batch(tmp_path / "asked", SpanSettings("http://127.0.0.1:1"), ROWS[:3])


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="no share of the rows"):
        wanted(SpanSettings(rows=float("nan")), {})
    with pytest.raises(UserError, match="no address of a collector"):
        wanted(SpanSettings("collector:4318"), {})
