"""Nothing is kept that nobody uses: words of tables and pages, and what the style sheet names."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest

import dispatcher
from dispatcher.console.dead_words import DEAD_WORDS
from dispatcher.console.log_words import LOG_WORDS
from dispatcher.console.words import WORDS
from dispatcher.ground import lang

ROOT = Path(dispatcher.__file__).parent
DICTIONARIES = {"lang.py", "words.py", "log_words.py", "dead_words.py"}
STYLES = (ROOT / "console" / "static" / "console.css").read_text("utf-8")


def texts(folder: Path, *endings: str) -> str:
    """All that is written there, but for the dictionaries."""
    files = (path for path in folder.rglob("*") if path.suffix in endings and path.name not in DICTIONARIES)
    return "\n".join(path.read_text("utf-8") for path in files)


def unused(words: Iterable[str], text: str) -> list[str]:
    """Those that stand nowhere whole, nor are made of a part that does: `'did_' ~ verb`, `f"why_{reason}"`."""
    whole = set(re.findall(r"\w+", text))
    begins = tuple(set(re.findall(r"['\"](\w+_)(?:['\"] ~|\{)", text)))
    ends = tuple(set(re.findall(r"~ ['\"](_\w+)['\"]", text)))
    return [word for word in words if word not in whole and not word.startswith(begins) and not word.endswith(ends)]


def unnamed(classes: Collection[str], text: str) -> list[str]:
    """The classes that no page and no script gives to anything."""
    return sorted(one for one in classes if not re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", text))


def classes_of(styles: str) -> set[str]:
    return set(re.findall(r"\.([a-zA-Z][\w-]*)", re.sub(r"/\*.*?\*/", "", styles, flags=re.DOTALL)))


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (lang.words("en"), ROOT),
        (WORDS["en"], ROOT / "console"),
        (LOG_WORDS["en"], ROOT / "console"),
        (DEAD_WORDS["en"], ROOT / "console"),
    ],
    ids=["tables", "pages", "log", "dead"],
)
def test_every_word_is_said_somewhere(words: Collection[str], where: Path) -> None:
    assert unused(words, texts(where, ".py", ".html")) == []


def test_every_class_of_the_style_sheet_is_somebodys() -> None:
    # Some are what a state is called in the store.
    assert unnamed(classes_of(STYLES), texts(ROOT, ".py", ".html", ".js")) == []


def test_a_planted_word_and_a_planted_class_are_found() -> None:
    assert unused(["said", "did_pause", "pause_one", "silent"], "t.said t['did_' ~ verb] t[verb ~ '_one']") == [
        "silent"
    ]
    assert unnamed(classes_of(".badge.ok{} /* .gone */ .tabs a{}"), '<b class="badge ok">') == ["tabs"]
