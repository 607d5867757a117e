"""Presets are data: the settings of a kind of operator, which its own settings override (wire-contract.md)."""

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "notice": {"crypto": {"cipher": "aes-128-cbc"}},
    "notice-b": {
        "crypto": {"cipher": "aes-128-cbc"},
        "notice": {"success": {"field": "success", "values": [True], "numeric": "wallet"}},
    },
    "notice-aes256": {"crypto": {"cipher": "aes-256-cbc", "key_encoding": "utf8"}},
    "settle": {"settle": {"retry": {"every": "60s", "for": "3h"}}},
    "jdb": {"settle": {"retry": {"every": "60s", "for": "1h"}}},
}
