"""`dispatcher` as a process on a machine that answers for names by how they end; run as `python -m tests.odd_names`."""

import socket
import threading
from typing import Any

from dispatcher.cli import main

PRIVATE = "10.0.0.1"
ANSWERS = {
    ".well.example": ["127.0.0.1"],
    ".private.example": [PRIVATE],
    ".both.example": ["127.0.0.1", PRIVATE],
    ".metadata.example": ["169.254.169.254"],
    ".mapped.example": ["::ffff:127.0.0.1", "::ffff:10.0.0.1"],
    ".empty.example": [],
}
HANGS, UNKNOWN = ".hangs.example", ".unknown.example"
_really = socket.getaddrinfo


def _answer(host: Any, *rest: Any, **more: Any) -> Any:
    end = f".{'.'.join(str(host).split('.')[-2:])}"
    if end == HANGS:
        threading.Event().wait()
    if end == UNKNOWN:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    if end in ANSWERS:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ANSWERS[end]]
    return _really(host, *rest, **more)


if __name__ == "__main__":
    socket.getaddrinfo = _answer
    main()
