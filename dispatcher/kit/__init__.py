"""An integration kit: all that an operator's people need to take what we send, made from their actual settings.

A document in Chinese and English, test vectors, a request to post, and a receiver in each of six languages. Nothing in
it is secret: it is made from a stand-in for the operator (`stand_in`), whose keys and tokens were never anyone's.
"""

import json
from collections.abc import Mapping

from dispatcher.ground.operator import Operator
from dispatcher.kit.facts import facts_of
from dispatcher.kit.guide import guide
from dispatcher.kit.page import page
from dispatcher.kit.receivers import receivers
from dispatcher.kit.stand_in import stand_in
from dispatcher.kit.vectors import example, vectors

__all__ = ["kit_files"]


def kit_files(operator: Operator) -> Mapping[str, str]:
    """The files of the kit: name → text. Raises Refused where its settings allow of no receiver."""
    given = stand_in(operator)
    facts = facts_of(given)
    examples = {one.kind: example(given, one.kind) for one in facts.types}
    text = guide(given, facts, examples)
    return {
        "integration.md": text,
        "integration.html": page(f"{operator.name}: 回调对接 / callback integration", text),
        "vectors.json": json.dumps(vectors(given, facts), ensure_ascii=False, indent=2) + "\n",
        **{f"{kind}.json": one.made.body for kind, one in examples.items()},
        **receivers(facts),
    }
