"""The message types we speak. A new one is one new file and one name here."""

from collections.abc import Mapping

from dispatcher.protocols import notice, settle, summary
from dispatcher.protocols.base import Protocol

# What game servers hand in, for operators.
PROTOCOLS: Mapping[str, Protocol] = {protocol.name: protocol for protocol in (notice.PROTOCOL, settle.PROTOCOL)}
# And what the dispatcher itself tells people: nobody hands it in, and it is no spin.
SPOKEN: Mapping[str, Protocol] = {**PROTOCOLS, summary.PROTOCOL.name: summary.PROTOCOL}

__all__ = ["PROTOCOLS", "SPOKEN", "Protocol"]
