"""What systemd is told by the service that it started (sd_notify): one datagram each; nothing where none listens.

Source: sd_notify(3), systemd.service(5): Type=notify, WatchdogSec.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Self


class Supervisor:
    """`address` is that of systemd's socket, a path or `@name`, None where there is none.

    `watchdog` is how long (s) it waits for a sign of life before it ends us; None where it doesn't.
    """

    def __init__(self, address: str | None, watchdog: float | None = None) -> None:
        self.watchdog = watchdog if address else None
        # An abstract socket's name begins with NUL.
        self._address = f"\0{address[1:]}" if address and address[0] == "@" else address
        self._status = ""
        self._proof = 0.0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """By NOTIFY_SOCKET and WATCHDOG_USEC, as systemd sets them for the process that it means."""
        usec = environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog = int(usec) / 1e6 if meant and usec.isascii() and usec.isdigit() and int(usec) else None
        return cls(environment.get("NOTIFY_SOCKET") or None, watchdog)

    @property
    def listens(self) -> bool:
        return self._address is not None

    def ready(self) -> None:
        """We are up; or a reload is over, whatever came of it."""
        self._tell("READY=1")

    def reloading(self) -> None:
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for people, in `systemctl status`."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text.splitlines()[0] if text else ''}")

    def alive(self, proof: float) -> None:
        """`proof` is when (s, monotonic) the work was last seen to go on: one ping for each new proof, none without."""
        if self.watchdog is not None and proof > self._proof:
            self._proof = proof
            self._tell("WATCHDOG=1")

    def _tell(self, state: str) -> None:
        if self._address is None:
            return
        # One that is gone, or does not read, must neither end nor hold us.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            out.sendto(state.encode(), self._address)
