"""The document as one HTML page that needs nothing from elsewhere. Reads just the Markdown that `guide` writes."""

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

from dispatcher.kit.text import fill

# A code span (its fence is one or two backticks), bold text, a link.
_INLINE = re.compile(
    r"(?P<fence>`{1,2})(?P<code>.+?)(?P=fence)|\*\*(?P<bold>.+?)\*\*|\[(?P<text>[^\]]+)\]\((?P<to>[^)]+)\)"
)
_CELL = re.compile(r"(?<!\\)\|")


def page(title: str, markdown: str) -> str:
    # The languages are the document's second headings: whoever reads the page aloud must know which it is.
    parts = re.split("(?m)^(?=## )", markdown)
    body = Markup("\n").join(_section(part) for part in parts)
    return fill("page.html", {"title": title, "body": body})


def _section(markdown: str) -> Markup:
    language = "en" if markdown.startswith("## English") else "zh"
    blocks = Markup("\n").join(_blocks(markdown.splitlines()))
    return Markup('<section lang="{}">\n{}\n</section>').format(language, blocks)


def _blocks(lines: list[str]) -> Iterator[Markup]:
    at = 0
    while at < len(lines):
        line = lines[at]
        end = at + 1
        if line.startswith("```"):
            while lines[end] != "```":
                end += 1
            yield Markup("<pre><code>{}</code></pre>").format("\n".join(lines[at + 1 : end]))
            end += 1
        elif line.startswith("#"):
            yield _heading(line)
        elif line.startswith(("|", "- ")):
            while end < len(lines) and lines[end].startswith(line[:1]):
                end += 1
            yield _table(lines[at:end]) if line.startswith("|") else _list(lines[at:end])
        elif line:
            yield Markup("<p>{}</p>").format(_inline(line))
        at = end


def _heading(line: str) -> Markup:
    marks, _, text = line.partition(" ")
    tag = Markup(f"h{len(marks)}")
    anchor = text.lower() if len(marks) == 2 else None
    named = Markup(' id="{}"').format(anchor) if anchor else Markup("")
    return Markup("<{}{}>{}</{}>").format(tag, named, _inline(text), tag)


def _list(lines: list[str]) -> Markup:
    return Markup("<ul>{}</ul>").format(
        Markup("").join(Markup("<li>{}</li>").format(_inline(one[2:])) for one in lines)
    )


def _table(lines: list[str]) -> Markup:
    """A heading, a line under it, rows. It scrolls by itself where a screen is narrow."""
    rows = [[cell.strip().replace("\\|", "|") for cell in _CELL.split(line)[1:-1]] for line in lines]
    head = _cells("th", rows[0])
    body = Markup("").join(_cells("td", row) for row in rows[2:])
    table = "<div class=wide tabindex=0><table><thead>{}</thead><tbody>{}</tbody></table></div>"
    return Markup(table).format(head, body)


def _cells(tag: str, cells: list[str]) -> Markup:
    mark = Markup(tag)
    return Markup("<tr>{}</tr>").format(
        Markup("").join(Markup("<{}>{}</{}>").format(mark, _inline(cell), mark) for cell in cells)
    )


def _inline(text: str) -> Markup:
    parts: list[Markup] = []
    at = 0
    for found in _INLINE.finditer(text):
        parts.append(escape(text[at : found.start()]))
        at = found.end()
        if found["code"] is not None:
            shown = found["code"][1:-1] if len(found["fence"]) == 2 else found["code"]
            parts.append(Markup("<code>{}</code>").format(shown))
        elif found["bold"] is not None:
            parts.append(Markup("<strong>{}</strong>").format(_inline(found["bold"])))
        else:
            parts.append(Markup('<a href="{}">{}</a>').format(found["to"], found["text"]))
    return Markup("").join([*parts, escape(text[at:])])
