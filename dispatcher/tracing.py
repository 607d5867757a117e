"""OpenTelemetry traces: one trace for each delivery, its acceptance at the root, its attempts below.

An attempt may come a month after the acceptance, and from another worker. Nothing is stored for that: the trace's id is
made from what a delivery is known by, and so is the id of the root's span. Whoever knows the one can reckon the other.
OpenTelemetry's own environment variables (OTEL_…) say where spans go, and how many of them.
"""

import logging
import os
import time
from collections.abc import Callable
from hashlib import blake2b
from importlib.util import find_spec
from math import inf
from typing import TYPE_CHECKING, Any

from dispatcher.ground.errors import Unfit
from dispatcher.ground.policy import Claim, Outcome, Verb, Verdict

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span, SpanContext

_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
# For what is not sent yet when the process ends.
FLUSH_MILLISECONDS = 3_000
# What keeps spans from being sent is told again so long after.
AGAIN_SECONDS = 60.0


def refuse_unfit() -> None:
    """Raises Unfit where traces can't be had as the environment wants them."""
    for name in _NEEDED:
        try:
            found = find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise Unfit(
                "is on, and OpenTelemetry is not installed",
                "pip install -e '.[otel]' where the dispatcher was cloned to, or turn it off",
            )
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        raise Unfit("is on, and OTEL_TRACES_EXPORTER names another exporter than otlp", "write otlp, or turn it off")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if os.environ.get(name, "http/protobuf") != "http/protobuf":
            raise Unfit(f"is on, and {name} is not http/protobuf", "write that: it is what is spoken here")


def open_traces(wanted: bool, version: str, tell: Callable[[str], None]) -> "Traces | None":
    """None where nobody wants any: then nothing of OpenTelemetry is even imported. `tell` as in `Traces`."""
    return Traces(version, tell) if wanted else None


class Traces:
    """Where spans are made. `processor` gets them; without one they go to the collector that the environment names.

    `tell` is called with what the exporter has to say.
    """

    def __init__(self, version: str, tell: Callable[[str], None], processor: "SpanProcessor | None" = None) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        class Ids(RandomIdGenerator):
            """Chance, but for the root of a delivery's trace, which is reckoned."""

            given: tuple[int, int] | None = None

            def generate_trace_id(self) -> int:
                return self.given[0] if self.given is not None else super().generate_trace_id()

            def generate_span_id(self) -> int:
                return self.given[1] if self.given is not None else super().generate_span_id()

        _speak(tell)
        named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        about = {"service.version": version} | ({} if named else {"service.name": "dispatcher"})
        self._ids = Ids()
        self._provider = TracerProvider(resource=Resource.create(about), id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(processor or _exporting())
        self._tracer = self._provider.get_tracer("dispatcher", version)

    def accepted(self, operator: str, kind: str, key: str, began: int, caller: str | None = None) -> None:
        """An event was taken in, and is on disk; `began` in ns since 1970. `caller`: the traceparent that came with it.

        The delivery's trace is its own, whoever handed it in: one request may bring thousands.
        """
        from opentelemetry.trace import Link, SpanKind

        calling = _parsed(caller)
        self._ids.given = _root_of(operator, kind, key)
        try:
            span = self._tracer.start_span(
                f"accept {kind}",
                _nothing(),
                SpanKind.CONSUMER,
                _about(operator, kind, key),
                [Link(calling)] if calling is not None else [],
                began,
            )
        finally:
            self._ids.given = None
        span.end()

    def begin(self, claim: Claim) -> "Attempt":
        """An attempt begins now."""
        from opentelemetry.trace import SpanKind

        about = _about(claim.operator, claim.type, claim.key) | {
            "dispatcher.attempt": claim.attempt,
            "dispatcher.trigger": claim.trigger.value,
        }
        below = self._below_root(claim)
        return Attempt(self._tracer.start_span(f"attempt {claim.type}", below, SpanKind.CLIENT, about))

    def _below_root(self, claim: Claim) -> "Context":
        """Whether the root was sampled is not asked of anybody: the sampler says the same of the same trace again."""
        from opentelemetry.sdk.trace.sampling import Decision
        from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

        trace, span = _root_of(claim.operator, claim.type, claim.key)
        said = self._provider.sampler.should_sample(None, trace, f"accept {claim.type}").decision
        flags = TraceFlags(TraceFlags.SAMPLED if said is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT)
        return set_span_in_context(NonRecordingSpan(SpanContext(trace, span, True, flags)), _nothing())

    def close(self) -> None:
        """What is not sent yet is sent, if that does not take long."""
        self._provider.force_flush(FLUSH_MILLISECONDS)
        self._provider.shutdown()


class Attempt:
    """The span of one attempt. `traceparent`: as W3C Trace Context writes it, for the operator."""

    def __init__(self, span: "Span") -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        its = self._span.get_span_context()
        return f"00-{its.trace_id:032x}-{its.span_id:016x}-{its.trace_flags:02x}"

    def end(self, outcome: Outcome, verdict: Verdict) -> None:
        from opentelemetry.trace import Status, StatusCode

        told: dict[str, Any] = {"dispatcher.result": verdict.status.value}
        if outcome.http_status is not None:
            told["http.response.status_code"] = outcome.http_status
        if verdict.reason is not None:
            told |= {"error.type": verdict.reason.value, "dispatcher.ambiguous": verdict.reason.ambiguous}
        if verdict.verb is not Verb.DELIVER:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.set_attributes(told)
        self._span.end()


def _about(operator: str, kind: str, key: str) -> dict[str, Any]:
    """Neither player nor amounts: whoever may see traces is not asked whether they may see those."""
    return {"dispatcher.operator": operator, "dispatcher.type": kind, "dispatcher.key": key}


def _root_of(operator: str, kind: str, key: str) -> tuple[int, int]:
    """The ids of a delivery's trace and of its root span. Neither is ever 0, which would say that there is none."""
    drawn = blake2b("\0".join((operator, kind, key)).encode(), digest_size=24, person=b"trace").digest()
    return int.from_bytes(drawn[:16]) or 1, int.from_bytes(drawn[16:]) or 1


def _parsed(traceparent: str | None) -> "SpanContext | None":
    """The span that a caller says it is; None where it says nothing that can be read."""
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if traceparent is None:
        return None
    said = TraceContextTextMapPropagator().extract({"traceparent": traceparent}, _nothing())
    context = get_current_span(said).get_span_context()
    return context if context.is_valid else None


def _nothing() -> "Context":
    from opentelemetry.context import Context

    return Context()


def _exporting() -> "SpanProcessor":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())


def _speak(tell: Callable[[str], None]) -> None:
    """What OpenTelemetry logs is told in our own log, as one line among the others."""

    told_at: dict[str, float] = {}

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # By what it is, not by what it says of this time: a collector that is away is told of at each batch.
            what, now = str(record.msg), time.monotonic()
            if now - told_at.get(what, -inf) > AGAIN_SECONDS:
                told_at[what] = now
                tell(record.getMessage())

    theirs = logging.getLogger("opentelemetry")
    theirs.handlers, theirs.propagate = [Handler()], False
