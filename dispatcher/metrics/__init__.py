"""What /metrics says: the figures of this process and the backlog of the store, for Prometheus (docs/metrics.md)."""

from dispatcher.metrics.exposition import Exposition, State, Work

__all__ = ["Exposition", "State", "Work"]
