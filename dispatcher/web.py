"""What the daemon serves over HTTP: whether it lives, and whether it works."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dispatcher.errors import Refused

# What keeps the daemon from working, by name; empty when it is ready.
Faults = Callable[[], dict[str, str]]


def application(faults: Faults) -> Starlette:
    """`/healthz`: the process answers. `/readyz`: 200, or 503 with what keeps it from delivering."""

    async def healthz(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    async def readyz(_request: Request) -> JSONResponse:
        found = faults()
        return JSONResponse({"status": "not ready" if found else "ready", **found}, status_code=503 if found else 200)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz)])


def bind(listen: tuple[str, int]) -> socket.socket:
    """Raises Refused where the address is taken or not ours."""
    host, port = listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise Refused(
            f'web.listen: {host}:{port} can\'t be used ({error.strerror}); write another address, or "" to turn it off'
        ) from None
    return bound


@contextlib.asynccontextmanager
async def serving(bound: socket.socket, app: Starlette) -> AsyncIterator[str]:
    """The URL; serves on a bound socket while the block runs; signals stay the daemon's."""
    # Its warnings are of requests that are none: a stranger could fill our log with them, in lines that are not ours.
    config = uvicorn.Config(
        app, log_config=None, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    # `_serve` is `serve` without uvicorn's signal handlers, which would end the daemon past its own way of stopping.
    running = asyncio.create_task(server._serve([bound]))
    host, port = bound.getsockname()[:2]
    try:
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await running
        bound.close()
