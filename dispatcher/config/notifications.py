"""One table of [notifications]: a webhook by which people are told, as an operator that takes `summary` alone."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from dispatcher.config.operators import Defaults, schedule_of, timeouts
from dispatcher.ground.clock import MINUTE, SECOND
from dispatcher.ground.errors import Unfit, choices
from dispatcher.ground.fields import shown
from dispatcher.ground.operator import (
    NOTIFY,
    SUMMARY,
    Auth,
    Chat,
    Language,
    Notification,
    Operator,
    Signing,
    Tell,
    Terms,
)
from dispatcher.ground.readers import is_open, operator_url, webhook_secret
from dispatcher.ground.secret import Secret
from dispatcher.ground.settings import Table
from dispatcher.protocols import chat, summary

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_SECRET = re.compile(r"[!-~]{1,256}", re.ASCII)
# What the chat tools take: 20 messages a minute.
_LEAST_EVERY = 3 * SECOND


def notification_of(name: str, table: Table, defaults: Defaults) -> Operator:
    """The notification that a table describes; its faults and warnings go to the table's report."""
    if not _NAME.fullmatch(name):
        table.fault("", f"{shown(name)} is no name for a notification", "use letters, digits, _ - and . (64 at most)")
    preset = table.choice("preset", Chat.JSON)
    origin, target = _webhook(table, defaults)
    secret = _secret(table, preset)
    connect_timeout, total_timeout = timeouts(table, defaults.connect_timeout, defaults.total_timeout)
    failing = table.table("failing")
    notification = Notification(
        preset=preset,
        target=target,
        secret=secret,
        operators=frozenset(table.read("operators", (), _names)),
        every=table.duration("every", 5 * MINUTE, _LEAST_EVERY),
        language=table.choice("lang", Language.EN),
        tell=frozenset(table.read("tell", tuple(Tell), _tell)),
        failures=failing.integer("failures", 20, 1, 1_000_000),
        over=failing.duration("for", 5 * MINUTE, SECOND),
    )
    failing.close()
    retry, standing = table.raw.get("retry"), summary.PROTOCOL.defaults["retry"]
    own = table.table("retry", None if isinstance(retry, Mapping) and "every" in retry else standing)
    terms = Terms(origin, Auth.NONE, schedule_of(own), chat.SUCCESS[preset])
    table.close()
    return Operator(
        name=f"{NOTIFY}{name}",
        terms={SUMMARY: terms},
        # One after the other: the tools show them in the order in which they come.
        concurrency=1,
        connect_timeout=connect_timeout,
        total_timeout=total_timeout,
        signing=Signing((secret,)) if preset is Chat.JSON and secret is not None else None,
        notification=notification,
    )


def _webhook(table: Table, defaults: Defaults) -> tuple[str | None, Secret]:
    """Where it is, and the rest of its URL, which is the secret of it. Faults never show more than the host."""
    url = table.secret("url")
    key = next((name for name in ("url", "url_env", "url_file") if name in table.raw), "url")
    if url is None:
        if not table.faulty("url"):
            table.fault(
                "url", "is missing", "write url, url_env or url_file: the webhook's URL as the chat tool gave it"
            )
        return None, Secret("")
    text = url.reveal()
    try:
        if not re.match(r"https?://[A-Za-z0-9.\[\]:_-]+/.", text):
            # Whatever it is, it may be the token alone: nothing of it is shown.
            raise Unfit("is not the URL of a webhook", 'write it whole, like "https://hooks.example/services/…"')
        operator_url(text, defaults.allow)
    except Unfit as unfit:
        table.fault(key, unfit.fault, unfit.mend)
        return None, Secret("")
    parts = urlsplit(text)
    if is_open(text):
        table.warn(key, "is plain http: its token travels unencrypted", "use https outside of tests")
    origin = f"{parts.scheme}://{parts.netloc}"
    return origin, Secret(text[len(origin) :])


def _secret(table: Table, preset: Chat) -> Secret | None:
    """What signs: Feishu's and DingTalk's own, Standard Webhooks for JSON; the others know none."""
    secret = table.secret("secret")
    key = next((name for name in ("secret", "secret_env", "secret_file") if name in table.raw), "secret")
    if secret is None:
        return None
    if preset in (Chat.WECOM, Chat.SLACK):
        table.fault(key, f"is given, and {preset} signs nothing", "leave it out: its URL is all that it needs")
        return None
    try:
        if preset is Chat.JSON:
            webhook_secret(secret.reveal())
        elif not _SECRET.fullmatch(secret.reveal()):
            raise Unfit("has blanks, line breaks or signs that no such secret has", f"copy it from {preset}'s settings")
    except Unfit as unfit:
        table.fault(key, unfit.fault, unfit.mend)
        return None
    return secret


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value) or not value:
        raise Unfit(
            f"{shown(value)} is not a list of operators", 'write e.g. ["acme"], or leave it out for all of them'
        )
    return tuple(value)


def _tell(value: Any) -> tuple[Tell, ...]:
    if not isinstance(value, list) or not value or not all(one in list(Tell) for one in value):
        raise Unfit(f"{shown(value)} is not a list of what can be told", f"write a list of {choices(Tell)}")
    return tuple(Tell(one) for one in value)
