"""The message types we speak. A new one is one new file and one name here."""

from collections.abc import Mapping

from dispatcher.protocols import notice, settle
from dispatcher.protocols.base import Protocol

PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in (notice.PROTOCOL, settle.PROTOCOL)}

__all__ = ["PROTOCOLS", "Protocol"]
