"""docs/errors.md, from what the code says. One page, however long: who has a message knows its words, not its room."""

import re
from collections.abc import Iterable, Sequence

from tests.errors.code import ROOT
from tests.errors.messages import AREAS, lines, messages, problems

PAGE = ROOT / "docs" / "errors.md"
_HEAD = """\
# Errors

Every message, by where it is met, with what to do. It is generated from the code (`python -m tests.errors
docs/errors.md`), and is one page so that one search finds a message by its words. What is in `<…>` is filled in when
it is said: search for the words around it.

A fault reads `where: what is wrong; what to do`, a refusal `what is wrong; what to do`. `where`, the setting, the
event's field or the option, is left out below. All faults of a configuration or an event are told at once. The HTTP API
has the same in `faults`, as `field`, `fault` and `mend`; `enqueue --json` in `refused`.

What an audit finds, a check of an operator finds, a difference between the books: [audit.md](audit.md),
[certify.md](certify.md), [reconcile.md](reconcile.md). Why one delivery's attempt failed: `dispatcher explain`.

Exit status: 1 refused or failed in part, 2 wrong use or configuration. What click says of options and arguments itself
(`No such option`, `Missing argument`) names them, and ends with 2.

`Error: a bug of ours, <type> in <place>; …`, with status 1, is one: nothing that you write should lead there.
`dispatcher --debug` before the same command shows its traceback, which has no values of variables in it: report that. A
service may always run as `dispatcher --debug run`; then its journal has it.

"""


def page() -> str:
    """The whole page, ending in a line break."""
    known = [(one.area, one.cause, one.mend) for one in messages()]
    parts = [(area, [(cause, mend) for where, cause, mend in known if where == area]) for area in AREAS]
    headings = (*AREAS, "Problems of the HTTP API", "The log")
    contents = " ·\n".join(f"[{name}](#{_anchor(name)})" for name in headings)
    told = [f"{_HEAD}{contents}\n"]
    for area, rows in parts:
        told += [
            f"\n## {area}\n\n",
            _table(("It says", "What to do"), [(code(one), _prose(two.removeprefix("or, "))) for one, two in rows]),
        ]
    told += ["\n## Problems of the HTTP API\n\n", _problems(), "\n## The log\n\n", _log()]
    return "".join(told)


def _problems() -> str:
    rows = [
        (f"{int(kind.status)} `{kind.slug}`", "; ".join([kind.title, *map(code, details)]), _prose(kind.mend))
        for kind, details in problems()
    ]
    return _table(("Status, `type`", "`title`; `detail`", "`mend`"), rows, ordered=False)


def _log() -> str:
    """The lines that tell of a trouble."""
    rows = [
        (code(one.event), "its traceback" if one.level == "exception" or "exc_info" in one.carries else "", one)
        for one in lines()
        if one.mend
    ]
    told = [
        (event, ", ".join(filter(None, [trace, *(code(name) for name in one.carries if name != "exc_info")])), one.mend)
        for event, trace, one in rows
    ]
    head = "Lines of `run` and `web` at the levels `error` and `warning` that ask something of somebody.\n\n"
    return head + _table(("`event`", "The cause is in", "`mend`"), [(a, b, _prose(c)) for a, b, c in told])


def code(text: str) -> str:
    """As it is written, in a cell of a table."""
    fence = "``" if "`" in text else "`"
    inner = f" {text} " if "`" in text else text
    return fence + inner.replace("|", "\\|") + fence


def _prose(text: str) -> str:
    """What is to be done, in which `<…>` is no tag, but for what stands between backticks."""
    parts = text.replace("|", "\\|").split("`")
    return "`".join(part if at % 2 else re.sub(r"([<*])", r"\\\1", part) for at, part in enumerate(parts))


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _table(heads: Sequence[str], rows: Iterable[tuple[str, ...]], *, ordered: bool = True) -> str:
    known = list(dict.fromkeys(rows))
    # By its words: what is filled in stands for anything.
    known = sorted(known, key=lambda row: (re.sub(r"<[^>]*>|\W+", " ", row[0]).split(), row)) if ordered else known
    every = [tuple(heads), ("---",) * len(heads), *known]
    return "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |") for row in every)
