"""A request through a transport of httpx's own: under the same deadline, read up to the same cap."""

import asyncio

import httpx

from dispatcher.ground.clock import SECOND
from dispatcher.wire.connection import MAX_RESPONSE_BYTES
from dispatcher.wire.failures import WEATHER
from dispatcher.wire.request import Answer, Request


async def exchange_by(transport: httpx.AsyncBaseTransport, request: Request, deadline: int) -> Answer:
    """As `PinnedTransport.exchange`; which addresses are called is that transport's own matter."""
    url = httpx.URL(request.url)
    if request.target is not None:
        url = url.copy_with(raw_path=bytes(request.target))
    theirs = httpx.Request("POST", url, headers=request.headers.pairs, stream=httpx.ByteStream(request.body))
    response: httpx.Response | None = None
    try:
        async with asyncio.timeout(deadline / SECOND):
            response = await transport.handle_async_request(theirs)
            body, truncated = await _read(response)
    except WEATHER as error:
        if response is None:
            raise
        return Answer(response.status_code, response.headers.raw, b"", False, error)
    return Answer(response.status_code, response.headers.raw, body, truncated)


async def _read(response: httpx.Response) -> tuple[bytes, bool]:
    """The body up to the cap, and whether there was more; the connection is given back or closed in any case."""
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    read = b""
    try:
        async for part in stream:
            read += part
            if len(read) > MAX_RESPONSE_BYTES:
                return read[:MAX_RESPONSE_BYTES], True
    finally:
        await stream.aclose()
    return read, False
