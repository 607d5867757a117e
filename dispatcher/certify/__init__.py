"""A conformance test of an operator's endpoint: test orders as production sends them, and what their answers prove.

Nothing is stored, and no store is needed.
"""
