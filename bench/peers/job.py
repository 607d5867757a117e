"""What every peer does with a job: the operator's JSON, its amounts encrypted. Runs in the peers' environments too."""

import base64
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY = b"0f1e2d3c4b5a6978"
IV = b"A1b2C3d4E5f6G7h8"
TOKEN = "bench-token-of-thirty-two-letters"
HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
TIMEOUT_SECONDS = 10
# Where the operators' paths begin, where the jobs are kept, how many are sent at once.
URL = os.environ.get("BENCH_URL", "")
STORE = os.environ.get("BENCH_STORE", "")
SLOTS = int(os.environ.get("BENCH_SLOTS", "50"))
_CIPHER = Cipher(algorithms.AES(KEY), modes.CBC(IV))


def body(event: dict[str, Any], uid: str) -> bytes:
    """The request's body, encrypted anew for every attempt."""
    padder, encryptor = padding.PKCS7(128).padder(), _CIPHER.encryptor()
    plain = json.dumps(event, separators=(",", ":")).encode()
    sealed = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    data = base64.b64encode(sealed).decode()
    letter = {"order_no": event["order_no"], "data": data, "time": event["time"], "uid": uid}
    return json.dumps(letter, separators=(",", ":")).encode()


def jobs() -> Iterator[dict[str, Any]]:
    """The jobs to be queued, from standard input: `path`, `uid`, `event`."""
    return (json.loads(line) for line in sys.stdin)
