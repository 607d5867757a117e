"""A trivial maker of load, to see what the sink itself can do: raw sockets, ready bytes, answers only counted."""

import select
import socket
import time
from typing import NamedTuple

from bench.deadline import Failed
from bench.sink import YES
from bench.stats import sink

CONNECTIONS = 50
# The sink has to do so many times what the quickest contender does, or it is the sink that is measured.
MARGIN = 3.0
_BODY = b"x" * 420
REQUEST = (
    b"POST /Demo/notice HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer bench-token-of-thirty-two-letters\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Capacity(NamedTuple):
    """Requests a second of the sink's CPU."""

    single: float
    pipelined: float


def capacity(seconds: float = 1.0) -> Capacity:
    """With one request in each write, as a client sends them, and with sixteen."""
    return Capacity(_rate(1, seconds), _rate(16, seconds))


def _rate(depth: int, seconds: float) -> float:
    with sink() as counted:
        before = counted.cpu_seconds()
        load(int(counted.url.rpartition(":")[2]), depth, seconds)
        # What one tick of the processor's clock is must not be divided by.
        return counted.answered() / max(0.01, counted.cpu_seconds() - before)


def load(port: int, depth: int, seconds: float) -> None:
    """Keeps `depth` requests under way on each of the connections, for so long."""
    batch, whole = REQUEST * depth, len(YES) * depth
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    with select.epoll() as poll:
        come = {}
        for client in clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            poll.register(client.fileno(), select.EPOLLIN)
            come[client.fileno()] = (client, 0)
            client.sendall(batch)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for number, _ in poll.poll(1):
                client, octets = come[number]
                octets += len(client.recv(65536))
                if octets >= whole:
                    octets -= whole
                    client.sendall(batch)
                come[number] = client, octets
    for client in clients:
        client.close()


def check(found: Capacity, highest: float) -> None:
    """Raises Failed where the sink would be what is measured."""
    if found.single < MARGIN * highest:
        told = f"{found.single:,.0f} requests a second of its CPU, and the quickest contender sends {highest:,.0f}"
        raise Failed(f"the sink takes {told}: it has to take {MARGIN:g} times as many")
