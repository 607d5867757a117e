"""The parts, in the order in which a whole run takes them.

One more part is a module with a PART, its name here, and its mark in bench/page.md.
"""

from bench.part import Part
from bench.parts import accepting, api, behaviour, growth, isolation, latency, rest, throughput

PARTS: tuple[Part, ...] = (
    throughput.PART,
    accepting.PART,
    api.PART,
    latency.PART,
    isolation.PART,
    rest.PART,
    behaviour.PART,
    growth.PART,
)
