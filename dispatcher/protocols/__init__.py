"""The message types we speak. A new one is one new file and one name here."""

from collections.abc import Mapping

from dispatcher.protocols import notice
from dispatcher.protocols.base import Letter, Protocol

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in (notice.PROTOCOL,)}

__all__ = ["PROTOCOLS", "Letter", "Protocol"]
