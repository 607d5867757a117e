"""How pages look: templates, words, the few files beside them, and the headers that keep strangers' text text."""

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from dispatcher.console.dead_words import DEAD_WORDS
from dispatcher.console.log_words import LOG_WORDS
from dispatcher.console.words import WORDS
from dispatcher.ground.clock import iso, to_datetime
from dispatcher.ground.fields import printable
from dispatcher.ground.lang import words

# Nothing but our own files: no script or style within a page, nothing from elsewhere, no frame around it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    # What is shown is gone from a shared machine with the log-out.
    "cache-control": "no-store",
}
LANGUAGES = ("zh", "en")
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dispatcher.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": _moment, "hour": _hour, "shown": _shown, "grouped": _grouped}
    environment.globals["file"] = _file
    return environment


def _moment(at: int | None) -> Markup:
    """A time (µs): in UTC here, and where there is a script, in the reader's zone."""
    if at is None:
        return Markup()
    text = to_datetime(at).strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}">{} UTC</time>').format(iso(at), text)


def _hour(at: int) -> Markup:
    """As `_moment`, only hour and minute; the rest is in the title."""
    moment = to_datetime(at)
    title, text = moment.strftime("%Y-%m-%d %H:%M UTC"), moment.strftime("%H:%M")
    return Markup('<time datetime="{}" data-short data-title="{}">{}</time>').format(iso(at), title, text)


def _shown(text: object) -> str:
    """Somebody else's text: control and direction characters are shown as what they are."""
    return printable(str(text))


def _grouped(amount: object) -> str:
    """Decimal text, or a number, with its thousands set apart; nothing for None."""
    return "" if amount is None else format(Decimal(str(amount)), ",f")


def _file(name: str) -> str:
    """The address of a file beside the pages; another content has another one."""
    return f"/console/files/{_known()[name][1]}/{name}"


@cache
def _known() -> Mapping[str, tuple[bytes, str]]:
    """Every file beside the pages, with what names its content."""
    found = {one.name: one.read_bytes() for one in files("dispatcher.console").joinpath("static").iterdir()}
    return {name: (content, hashlib.sha256(content).hexdigest()[:16]) for name, content in found.items()}


async def static(request: Request) -> Response:
    """`/console/files/HASH/NAME`: kept by the browser for good."""
    content, its = _known().get(request.path_params["name"], (b"", ""))
    if not its or its != request.path_params["hash"]:
        return Response(status_code=404, headers=dict(HEADERS))
    kind = _TYPES[request.path_params["name"].rpartition(".")[2]]
    headers = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}
    return Response(content, headers=headers, media_type=kind)


class Look:
    """Templates in one language; `t["name"]` is a word: the tables' (lang), or the pages' own (console.words)."""

    def __init__(self, language: str) -> None:
        self.language = language
        # A table of a terminal has them small.
        tables = {name: word[:1].upper() + word[1:] for name, word in words(language).items()}
        self.t: Mapping[str, str] = {**tables, **WORDS[language], **LOG_WORDS[language], **DEAD_WORDS[language]}

    def render(self, template: str, **values: object) -> str:
        return _environment().get_template(template).render(t=self.t, language=self.language, **values)


LOOKS = {language: Look(language) for language in LANGUAGES}


def look_for(request: Request) -> Look:
    """The language that was chosen (a cookie), else the browser's first of ours."""
    chosen = request.cookies.get("language")
    if chosen in LANGUAGES:
        return LOOKS[chosen]
    wanted = (part.partition(";")[0].strip().lower() for part in request.headers.get("accept-language", "").split(","))
    return next((LOOKS[one[:2]] for one in wanted if one[:2] in LANGUAGES), LOOKS["en"])
