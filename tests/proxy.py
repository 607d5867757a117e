"""A proxy before a PostgreSQL server: it passes bytes, late or not at all, and cuts connections where it hurts most."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Self

# How a commit looks on its way there, and on its way back.
_COMMIT = b"COMMIT\0"


class Cut(Enum):
    """Where a connection is cut: its commit is never made, or it is made and nobody hears of it."""

    BEFORE_COMMIT = "before its commit arrives"
    AFTER_COMMIT = "after its commit, before the answer"


class _Link:
    """One connection, both halves."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.committing = False
        self._carried = threading.Barrier(2, action=self._close)

    def cut(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Both ways have come to their end."""
        self.cut()
        self._carried.wait()

    def _close(self) -> None:
        self.client.close()
        self.server.close()


class Proxy:
    """Listens at `port`. `delay` (s) holds up each answer; while `flowing` is clear nothing passes, and all looks well.

    `cuts` are spent one by one on the commits to come; `cut` counts them. `folder` is the server's socket folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.delay = 0.0
        self.flowing = threading.Event()
        self.flowing.set()
        self.cuts: list[Cut] = []
        self.cut = 0
        self._links: list[_Link] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._door.getsockname()[1])
        self._threads = [threading.Thread(target=self._welcome)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self.flowing.set()
        self.cut_all()
        for thread in self._threads:
            thread.join()
        self._door.close()

    def cut_all(self) -> None:
        """Every connection that is open at this moment."""
        for link in list(self._links):
            link.cut()

    def _welcome(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self.folder / ".s.PGSQL.5432"))
            except OSError:
                # As a port that nobody listens at.
                client.close()
                server.close()
                continue
            link = _Link(client, server)
            self._links.append(link)
            for carry in (self._up, self._down):
                self._threads.append(threading.Thread(target=self._carry, args=(carry, link)))
                self._threads[-1].start()

    def _carry(self, carry: Callable[[_Link], None], link: _Link) -> None:
        with suppress(OSError):
            carry(link)
        link.end()

    def _up(self, link: _Link) -> None:
        while data := link.client.recv(65_536):
            self.flowing.wait()
            if _COMMIT in data and self.cuts:
                self.cut += 1
                if self.cuts.pop(0) is Cut.BEFORE_COMMIT:
                    return
                link.committing = True
            link.server.sendall(data)

    def _down(self, link: _Link) -> None:
        while data := link.server.recv(65_536):
            if link.committing:
                # The answer to the commit: whoever waits for it never gets it.
                return
            time.sleep(self.delay)
            self.flowing.wait()
            link.client.sendall(data)
