"""What the operator's own list says of the test orders, where it offers one: the only way to see that nothing is booked
twice.
"""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlencode

from dispatcher.certify import text
from dispatcher.certify.orders import TEXTS
from dispatcher.certify.text import Text
from dispatcher.ground.clock import WallClock
from dispatcher.ground.egress import Network
from dispatcher.ground.errors import Refused
from dispatcher.ground.operator import Operator
from dispatcher.protocols import PROTOCOLS
from dispatcher.tls import tls_context
from dispatcher.wire import Headers, LookingTransport, Request, Resolver, Wire

_ROWS = 'answer with a JSON list, one object for each booking, like [{"order_no": "…", "total_win": "2.5"}]'


class Books:
    """`GET URL?order_no=KEY` (`txId` for a settle), without any proof of who asks."""

    def __init__(self, url: str, operator: Operator, kind: str, allow: tuple[Network, ...]) -> None:
        self._url, self._kind, self._protocol = url, kind, PROTOCOLS[kind]
        context = tls_context(operator.tls) if operator.tls else None
        self._transport = LookingTransport(Resolver(), allow, operator.connect_timeout, context)
        self._deadline = operator.total_timeout

    async def bookings(self, key: str) -> list[Mapping[str, Any]]:
        """Each booking of this order. Raises Refused where the list can't be had."""
        name = self._protocol.key
        joint = "&" if "?" in self._url else "?"
        request = Request(f"{self._url}{joint}{urlencode({name: key})}", Headers([]), b"")
        outcome = await Wire(WallClock()).post(self._transport, request, self._deadline)
        if outcome.http_status != 200 or outcome.reason is not None:
            raise Refused(f"{outcome.reason or f'HTTP {outcome.http_status}'}; it must answer with 200")
        try:
            rows = json.loads(outcome.body, parse_float=Decimal)
        except ValueError:
            told = "more than 64 KiB; look at the query, and answer with that order alone"
            raise Refused(told if outcome.truncated else f"no JSON; {_ROWS}") from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Refused(f"no list of objects; {_ROWS}")
        return [row for row in rows if row.get("type", self._kind) == self._kind and str(row.get(name)) == key]

    def faults(self, key: str, sent: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]) -> list[Text]:
        """What is wrong with the bookings of an order; `sent` None where nothing of it may be booked."""
        if sent is None:
            return [text.BOOKED.fill(key=key)] if rows else []
        if len(rows) != 1:
            return [text.TWICE.fill(key=key, count=len(rows)) if rows else text.ABSENT.fill(key=key)]
        names = [name for name in (*self._protocol.amounts, *TEXTS[self._kind]) if name in sent and name in rows[0]]
        return [
            text.DIFFERS.fill(key=key, field=name, sent=sent[name], booked=str(rows[0][name])[:100])
            for name in names
            if not self._same(name, sent[name], rows[0][name])
        ]

    def _same(self, name: str, sent: Any, booked: Any) -> bool:
        if name not in self._protocol.amounts:
            return bool(sent == booked)
        try:
            return Decimal(str(booked)) == Decimal(sent)
        except InvalidOperation:
            return False

    async def aclose(self) -> None:
        await self._transport.aclose()
