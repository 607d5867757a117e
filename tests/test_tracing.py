"""Traces: one for each delivery, whoever hands it in and attempts it; sent to a collector, and to operators."""

import os
import re
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dispatcher import tracing
from dispatcher.config.web import Web
from dispatcher.ground.apikey import Scope
from dispatcher.ground.clock import MINUTE, SECOND
from dispatcher.store.engine import Database
from dispatcher.tracing import Traces
from tests.canaries import canary
from tests.ground import ACME, IV, KEY, acme_with, config_with, faults_of, line, notice
from tests.served import NDJSON, Served
from tests.story import Story, orders, until
from tests.workshop import Bench, MovedClock, configuration

pytestmark = pytest.mark.anyio
OK = httpx.Response(200)
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])")
CALLER = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.fixture
def kept() -> Iterator[tuple[Traces, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    traces = Traces("1", print, SimpleSpanProcessor(exporter))
    yield traces, exporter
    traces.close()


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


async def test_acceptance_and_attempts_are_one_trace_though_nothing_of_it_is_stored(
    tmp_path: Path, kept: tuple[Traces, InMemorySpanExporter]
) -> None:
    traces, exporter = kept
    traces.accepted("acme", "notice", "1", 1_000)
    async with Bench(configuration(tmp_path)) as at:
        at.dispatch.traces = traces
        at.acme.mock(side_effect=[httpx.Response(500), OK, OK])
        await at.send(1)
        await at.idle()
        at.dispatch.traces = None
        await at.restart()
        at.dispatch.traces = traces
        await at.after(MINUTE + SECOND)
        await at.idle()
        await at.send(2)
        await at.idle()
        at.dispatch.traces = None
    root, first, second, other = exporter.get_finished_spans()
    assert [one.name for one in (root, first, other)] == ["accept notice", "attempt notice", "attempt notice"]
    assert root.parent is None
    assert root.start_time == 1_000
    for attempt, n, result in ((first, 1, "pending"), (second, 2, "delivered")):
        assert attempt.parent is not None
        assert (attempt.parent.trace_id, attempt.parent.span_id) == ids(root)
        assert ids(attempt)[0] == ids(root)[0]
        assert (told(attempt)["dispatcher.attempt"], told(attempt)["dispatcher.result"]) == (n, result)
        about = {name: told(attempt)[f"dispatcher.{name}"] for name in ("operator", "type", "key")}
        assert about == {"operator": "acme", "type": "notice", "key": "1"}
    assert (told(first)["http.response.status_code"], told(first)["error.type"]) == (500, "http_status")
    assert not first.status.is_ok
    assert second.status.is_ok
    assert ids(other)[0] != ids(root)[0]
    assert len({ids(one) for one in (root, first, second, other)}) == 4


async def test_an_operator_is_told_the_trace_where_it_wants_that_and_no_other_is(
    tmp_path: Path, kept: tuple[Traces, InMemorySpanExporter]
) -> None:
    traces, exporter = kept
    async with Bench(configuration(tmp_path, traceparent="true", headers='{ X-More = "more" }')) as at:
        at.acme.mock(return_value=OK)
        at.dispatch.traces = traces
        await at.send(1)
        await at.idle()
        said = TRACEPARENT.fullmatch(at.request().headers["traceparent"])
        assert said is not None
        (span,) = exporter.get_finished_spans()
        assert (int(said[1], 16), int(said[2], 16), said[3]) == (*ids(span), "01")
        assert at.request().headers["authorization"] == "Bearer the-token-of-acme"
        assert at.request().headers["x-more"] == "more"
        at.dispatch.traces = None
        await at.send(2)
        await at.idle()
        assert "traceparent" not in at.request().headers
    (tmp_path / "other").mkdir()
    # Each of whose requests has headers of its own as well.
    signed = configuration(tmp_path / "other", signature=f'{{ secret = "whsec_{b64encode(bytes(32)).decode()}" }}')
    async with Bench(signed, MovedClock()) as at:
        at.acme.mock(return_value=OK)
        at.dispatch.traces = traces
        await at.send(1)
        await at.idle()
        assert "webhook-signature" in at.request().headers
        assert "traceparent" not in at.request().headers
        at.dispatch.traces = None


async def test_whoever_hands_in_is_linked_and_only_what_is_new_is_traced(
    database: Database, kept: tuple[Traces, InMemorySpanExporter]
) -> None:
    traces, exporter = kept
    at = Served(database, Web(("127.0.0.1", 0)), traces)
    async with at.api.working(), at.client:
        key = at.key(Scope.ENQUEUE)
        for _ in range(2):
            await at.post("/v1/events", {**key, "traceparent": CALLER}, notice())
        lines = "\n".join(line(notice(order_no=str(n))) for n in (1, 2, 2)).encode()
        assert (await at.post("/v1/events/batch", {**key, **NDJSON, "traceparent": "nonsense"}, lines)).json()[
            "accepted"
        ] == 2
    one, *batch = exporter.get_finished_spans()
    (link,) = one.links
    assert f"{link.context.trace_id:032x}" == "ab" * 16
    assert [(told(span)["dispatcher.key"], len(span.links)) for span in batch] == [("1", 0), ("2", 0)]


def test_what_is_not_sampled_is_not_sampled_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """By OpenTelemetry's own variables; acceptance and attempts agree, as each asks the same of the same trace."""
    from tests.ground import claim

    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    exporter = InMemorySpanExporter()
    traces = Traces("1", print, SimpleSpanProcessor(exporter))
    flags = set()
    for n in range(100):
        traces.accepted("acme", "notice", str(n), 0)
        span = traces.begin(claim(key=str(n)))
        flags.add(span.traceparent[-2:])
        span._span.end()
    spans = exporter.get_finished_spans()
    roots = {ids(one)[0] for one in spans if one.parent is None}
    assert roots == {ids(one)[0] for one in spans if one.parent is not None}
    assert 20 < len(roots) < 80
    assert flags == {"00", "01"}
    traces.close()


async def test_no_secret_no_player_and_no_amount_is_in_a_span(
    tmp_path: Path, kept: tuple[Traces, InMemorySpanExporter]
) -> None:
    traces, exporter = kept
    traces.accepted("acme", "notice", "1", 0)
    async with Bench(configuration(tmp_path)) as at:
        at.dispatch.traces = traces
        at.acme.mock(return_value=httpx.Response(200, text="the-token-of-acme"))
        await at.send(1, uid=canary("uid"), total_bet="7654321.5")
        await at.idle()
        at.dispatch.traces = None
    shown = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert '"dispatcher.key": "1"' in shown
    assert [
        one for one in ("the-token-of-acme", KEY, IV, canary("uid"), "7654321", "acme.example") if one in shown
    ] == []


# The table [telemetry].


def test_traces_that_can_not_be_had_are_a_fault_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    on = f"[telemetry]\ntraces = true\n{ACME}"
    assert config_with(on).traces
    assert not config_with(ACME).traces
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert "http/protobuf" in str(faults_of(on)["telemetry.traces"])
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    assert "OTEL_TRACES_EXPORTER" in str(faults_of(on)["telemetry.traces"])
    monkeypatch.setattr(tracing, "_NEEDED", ("opentelemetry_that_is_not_there.sdk",))
    assert "pip install -e '.[otel]'" in str(faults_of(on)["telemetry.traces"])
    assert faults_of(ACME) == {}


def test_a_traceparent_that_is_never_sent_is_warned_of_and_one_set_twice_refused() -> None:
    lines = "traceparent = true"
    warned = {one.where for one in config_with(acme_with(lines)).warnings}
    assert "operators.acme.traceparent" in warned
    assert "operators.acme.traceparent" not in {
        one.where for one in config_with(f"[telemetry]\ntraces = true\n{acme_with(lines)}").warnings
    }
    assert "operators.acme.headers.traceparent" in faults_of(acme_with(f'{lines}\nheaders = {{ Traceparent = "x" }}'))


# A collector.


class Collector(ThreadingHTTPServer):
    """Takes what OTLP over HTTP brings."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.spans: list[Any] = []
        self.services: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.server.services.add(about["service.name"])
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


def test_a_collector_gets_one_trace_from_three_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with collecting() as collector, Story(tmp_path) as story, story.receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        story.tables["telemetry"] = {"traces": True}
        story.set(notice_url=f"{receiver.url}/Demo/notice", traceparent=True)
        story.enqueue(orders(2))
        assert len(collector.spans) == 2
        with story.running() as daemon:
            until(lambda: story.all_are("delivered"), told=daemon.text)
            with httpx.Client(base_url=daemon.web, headers=story.key("enqueue"), trust_env=False, timeout=60) as client:
                assert client.post("/v1/events", json=notice(order_no="7")).status_code == 202
            until(lambda: story.all_are("delivered"), told=daemon.text)
    assert sorted(span.name for span in collector.spans) == ["accept notice"] * 3 + ["attempt notice"] * 3
    roots = {span.trace_id: span.span_id for span in collector.spans if not span.parent_span_id}
    assert {(span.trace_id, span.parent_span_id) for span in collector.spans if span.parent_span_id} == set(
        roots.items()
    )
    assert len(roots) == 3
    assert collector.services == {"dispatcher"}


def test_a_collector_that_is_away_costs_no_delivery_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with Story(tmp_path) as story, story.receiving() as receiver:
        story.set(notice_url=f"{receiver.url}/Demo/notice")
        story.enqueue(orders(5))
        story.tables["telemetry"] = {"traces": True}
        story.write()
        with story.running() as daemon:
            until(lambda: story.all_are("delivered"), told=daemon.text)
            until(lambda: daemon.told("traces_not_sent"), told=daemon.text)
        assert len(daemon.told("traces_not_sent")) <= 3
        assert "Traceback" not in daemon.text()


def test_what_is_off_imports_nothing(tmp_path: Path) -> None:
    lines = (
        "import sys",
        "from pathlib import Path",
        "from dispatcher.app import Daemon",
        "from dispatcher.config import load_config",
        "from dispatcher.telemetry import configure_logs",
        f"Daemon(load_config(Path({str(configuration(tmp_path))!r})), configure_logs(as_json=True, level='error'))",
        "print([name for name in sys.modules if name.startswith('opentelemetry')])",
    )
    code = "\n".join(lines)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]", done
