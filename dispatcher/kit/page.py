"""The document as one HTML page that needs nothing from elsewhere. Reads just the Markdown that `guide` writes."""

import re
from collections.abc import Iterator
from html import escape

from dispatcher.kit.text import fill

# A code span (its fence is one or two backticks), bold text, a link.
_INLINE = re.compile(
    r"(?P<fence>`{1,2})(?P<code>.+?)(?P=fence)|\*\*(?P<bold>.+?)\*\*|\[(?P<text>[^\]]+)\]\((?P<to>[^)]+)\)"
)
_CELL = re.compile(r"(?<!\\)\|")


def page(title: str, markdown: str) -> str:
    # The languages are the document's second headings: whoever reads the page aloud must know which it is.
    parts = re.split("(?m)^(?=## )", markdown)
    return fill("page.html", {"title": title, "body": "\n".join(_section(part) for part in parts)})


def _section(markdown: str) -> str:
    language = "en" if markdown.startswith("## English") else "zh"
    blocks = "\n".join(_blocks(markdown.splitlines()))
    return f'<section lang="{language}">\n{blocks}\n</section>'


def _blocks(lines: list[str]) -> Iterator[str]:
    at = 0
    while at < len(lines):
        line = lines[at]
        end = at + 1
        if line.startswith("```"):
            while lines[end] != "```":
                end += 1
            shown = "\n".join(lines[at + 1 : end])
            yield f"<pre><code>{escape(shown)}</code></pre>"
            end += 1
        elif line.startswith("#"):
            yield _heading(line)
        elif line.startswith(("|", "- ")):
            while end < len(lines) and lines[end].startswith(line[:1]):
                end += 1
            yield _table(lines[at:end]) if line.startswith("|") else _list(lines[at:end])
        elif line:
            yield f"<p>{_inline(line)}</p>"
        at = end


def _heading(line: str) -> str:
    marks, _, text = line.partition(" ")
    named = f' id="{escape(text.lower())}"' if len(marks) == 2 else ""
    return f"<h{len(marks)}{named}>{_inline(text)}</h{len(marks)}>"


def _list(lines: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{_inline(one[2:])}</li>' for one in lines)}</ul>"


def _table(lines: list[str]) -> str:
    """A heading, a line under it, rows. It scrolls by itself where a screen is narrow."""
    rows = [[cell.strip().replace("\\|", "|") for cell in _CELL.split(line)[1:-1]] for line in lines]
    body = "".join(_cells("td", row) for row in rows[2:])
    table = f"<table><thead>{_cells('th', rows[0])}</thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _cells(tag: str, cells: list[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_inline(cell)}</{tag}>' for cell in cells)}</tr>"


def _inline(text: str) -> str:
    """The text of a line, escaped, with what is marked in it."""
    parts: list[str] = []
    at = 0
    for found in _INLINE.finditer(text):
        parts.append(escape(text[at : found.start()]))
        at = found.end()
        if found["code"] is not None:
            shown = found["code"][1:-1] if len(found["fence"]) == 2 else found["code"]
            parts.append(f"<code>{escape(shown)}</code>")
        elif found["bold"] is not None:
            parts.append(f"<strong>{_inline(found['bold'])}</strong>")
        else:
            parts.append(f'<a href="{escape(found["to"])}">{escape(found["text"])}</a>')
    return "".join([*parts, escape(text[at:])])
