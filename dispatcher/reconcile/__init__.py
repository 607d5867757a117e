"""The books compared: what the operator says it booked, held against the wallet-flow log."""
