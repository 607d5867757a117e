"""What schemathesis can't know of the API: how NDJSON is written, and which operator there is."""

import json
from typing import Any

import schemathesis

_NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")


@schemathesis.serializer(*_NDJSON)
def ndjson(_context: Any, value: Any) -> bytes:
    """Text as it is; anything else as one line."""
    return value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """Any text is an operator by the document; only one is by the configuration."""
    if isinstance(body, dict) and isinstance(body.get("operator"), str):
        return {**body, "operator": "acme"}
    return body
