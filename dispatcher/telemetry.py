"""Structured logs: one canonical line for each attempt, one for whatever a person should know. Never a secret."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, BinaryIO, cast

import orjson
import structlog

from dispatcher.ground.clock import MILLISECOND, SECOND, iso, to_datetime
from dispatcher.ground.fields import printable
from dispatcher.ground.policy import Claim, Outcome, Verb, Verdict

Log = structlog.typing.FilteringBoundLogger


class _Gathering:
    """Lines logged within one turn of the event loop go out in one write: a system call a line is what they'd cost."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self._lines.append(line)

    def flush(self) -> None:
        """What structlog calls after each line."""
        if len(self._lines) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self._out)
        except RuntimeError:
            self._out()

    def _out(self) -> None:
        lines, self._lines = self._lines, []
        self._file.write(b"".join(lines))
        self._file.flush()


@lru_cache(maxsize=1)
def _second(second: int) -> str:
    return to_datetime(second * SECOND).strftime("%Y-%m-%dT%H:%M:%S")


def _stamp() -> str:
    """The time of a line, ISO 8601 UTC; what changes once a second is made once a second."""
    second, rest = divmod(time.time_ns() // 1_000, SECOND)
    return f"{_second(second)}.{rest:06d}Z"


def _json(line: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> bytes:
    """Half characters, which an operator's answer may have, must break no line: orjson refuses them."""
    try:
        return orjson.dumps(line, default=default)
    except TypeError:
        return json.dumps(line, default=str, ensure_ascii=False).encode("utf-8", "replace")


def _printable(_logger: object, _name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What came from an operator drives nobody's terminal, and begins no line of its own."""
    for name, value in line.items():
        if isinstance(value, str):
            line[name] = printable(value)
    return line


def _json_logger(level: int) -> type[Log]:
    """structlog's logger, with a short way for what is told of every delivery: through the chain of processors that

    line would cost a fifth of the delivery.
    """
    logger: Any = structlog.make_filtering_bound_logger(level)
    if level > logging.INFO:
        return cast(type[Log], logger)

    class JsonLogger(logger):  # type: ignore[misc]  # structlog makes its base while the program runs
        def info(self, event: str, **values: Any) -> None:
            line = {**self._context, **values, "event": event, "level": "info", "timestamp": _stamp()}
            self._logger.msg(_json(line))

    return cast(type[Log], JsonLogger)


def configure_logs(*, as_json: bool, level: str) -> Log:
    """A log on stderr: JSON for machines, columns for people."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    stamp: list[Any] = [structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    if as_json:
        tail = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
        factory: Any = structlog.BytesLoggerFactory(cast(BinaryIO, _Gathering(sys.stderr.buffer)))
    else:
        # The plain traceback: the pretty one shows local variables, and with them tokens and amounts.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        tail = [_printable, renderer]
        factory = structlog.PrintLoggerFactory(sys.stderr)
    structlog.configure(
        processors=stamp + tail,
        wrapper_class=_json_logger(threshold) if as_json else structlog.make_filtering_bound_logger(threshold),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    log: Log = structlog.get_logger().bind()
    return log


def attempt_line(claim: Claim, outcome: Outcome, verdict: Verdict, *, late: bool) -> dict[str, Any]:
    """Everything needed to follow a delivery: who, which attempt, what came of it, what follows."""
    return {
        "id": claim.id,
        "operator": claim.operator,
        "type": claim.type,
        "key": claim.key,
        # A fault of our own is no attempt of the delivery's.
        "n": None if verdict.verb is Verb.PUT_OFF else claim.attempt,
        "trigger": claim.trigger.value,
        "status": verdict.status.value,
        "http_status": outcome.http_status,
        "code": verdict.code,
        "reason": verdict.reason and verdict.reason.value,
        "ambiguous": bool(verdict.reason and verdict.reason.ambiguous),
        "detail": outcome.detail or verdict.words,
        "duration_ms": outcome.duration and outcome.duration // MILLISECOND,
        "late_by_ms": max(0, outcome.started_at - claim.due_at) // MILLISECOND,
        "key_version": outcome.key_version,
        "due_at": iso(verdict.due_at),
        "superseded": late,
    }
