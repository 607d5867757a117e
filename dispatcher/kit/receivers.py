"""The receivers: one template for each language, filled so that only this operator's way through it is written."""

import json
from typing import NamedTuple

from dispatcher.kit.facts import Facts
from dispatcher.kit.text import fill, filters


class Language(NamedTuple):
    """A receiver's file, how its self-check is run, and how it is started."""

    name: str
    file: str
    check: str
    run: str


LANGUAGES = (
    Language("PHP", "receiver.php", "php receiver.php --self-check", "php -S 127.0.0.1:9000 receiver.php"),
    Language("Java", "Receiver.java", "java Receiver.java --self-check", "java Receiver.java"),
    Language("Node", "receiver.js", "node receiver.js --self-check", "node receiver.js"),
    Language("Go", "receiver.go", "go run receiver.go --self-check", "go run receiver.go"),
    Language("Python", "receiver.py", "python3 receiver.py --self-check", "python3 receiver.py"),
    Language(
        "C#",
        "Receiver.cs",
        "mcs -out:receiver.exe Receiver.cs && mono receiver.exe --self-check",
        "mono receiver.exe",
    ),
)


def receivers(facts: Facts) -> dict[str, str]:
    """The text of each receiver by its file's name."""
    values = facts.for_code()
    return {one.file: fill(one.file, values) for one in LANGUAGES}


def _ascii(text: str) -> str:
    """`\\u` escapes of UTF-16, as Java, C# and JavaScript read them."""
    return json.dumps(text)


def _utf8(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _php(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# What is written is code, where every value goes through the literal of its language.
filters({"py": lambda text: repr(str(text)), "js": _ascii, "java": _ascii, "cs": _ascii, "go": _utf8, "php": _php})
