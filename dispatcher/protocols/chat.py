"""What the webhooks of chat tools read, how they are signed, and what is a yes to them. Pure.

Sources: the tools' own pages on custom robots (Feishu and Lark, DingTalk, WeCom), incoming webhooks (Slack). Texts go
as plain text wherever there is one: nothing in them is markup, a link's name or a person to call.
"""

import base64
import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import orjson

from dispatcher.ground.clock import MILLISECOND, SECOND
from dispatcher.ground.operator import Chat, Language, Notification
from dispatcher.ground.policy import Rule
from dispatcher.ground.secret import SecretBytes

# What is a yes: they all answer 200 to what they refuse, but for Slack.
SUCCESS: Mapping[Chat, Rule] = {
    Chat.JSON: Rule(statuses=frozenset({200, 201, 202, 204})),
    Chat.FEISHU: Rule(field=("code",), values=(0,)),
    Chat.DINGTALK: Rule(field=("errcode",), values=(0,)),
    Chat.WECOM: Rule(field=("errcode",), values=(0,)),
    Chat.SLACK: Rule(),
}
# Bytes of text. WeCom cuts at 2048; Feishu and DingTalk refuse a body of 20 KiB, Slack one of 40,000 characters.
_LONGEST = {Chat.WECOM: 2_000}
_LONGEST_ELSEWHERE = 8_000


def message(notification: Notification, title: str, lines: Sequence[str], now: int) -> bytes:
    """The body of one attempt at `now` (µs since 1970); lines that the tool would not take are left out."""
    lines = _fitting(lines, _LONGEST.get(notification.preset, _LONGEST_ELSEWHERE) - len(title.encode()))
    text = "\n".join([title, *lines])
    match notification.preset:
        case Chat.FEISHU:
            content = [[{"tag": "text", "text": line}] for line in lines or [title]]
            language = "zh_cn" if notification.language is Language.ZH else "en_us"
            post = {"msg_type": "post", "content": {"post": {language: {"title": title, "content": content}}}}
            return orjson.dumps({**_feishu_signature(notification, now), **post})
        case Chat.SLACK:
            return orjson.dumps({"text": slack_text(text), "mrkdwn": False})
        case _:
            return orjson.dumps({"msgtype": "text", "text": {"content": text}})


def _fitting(lines: Sequence[str], room: int) -> list[str]:
    """As many whole lines as there is room for, the last one in any case: it says where to look."""
    kept: list[str] = []
    room -= sum(len(line.encode()) + 1 for line in lines[-1:]) + len("\n…".encode())
    for line in lines[:-1]:
        room -= len(line.encode()) + 1
        if room < 0:
            kept.append("…")
            break
        kept.append(line)
    return [*kept, *lines[-1:]]


def slack_text(text: str) -> str:
    """Slack's three signs: what stands between < and > would be a link, or call a whole channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def target(notification: Notification, now: int) -> SecretBytes:
    """Path and query; DingTalk wants the signature there."""
    path = notification.target.reveal()
    if notification.preset is Chat.DINGTALK and notification.secret is not None:
        # In ms; good for an hour.
        timestamp, key = str(now // MILLISECOND), notification.secret.reveal()
        sign = _signed(key.encode(), f"{timestamp}\n{key}".encode())
        path += f"{'&' if '?' in path else '?'}timestamp={timestamp}&sign={quote(sign, safe='')}"
    return SecretBytes(path.encode())


def _feishu_signature(notification: Notification, now: int) -> dict[str, str]:
    """In seconds; good for an hour. The text is the key, and nothing is signed with it: that is how they want it."""
    if notification.secret is None:
        return {}
    timestamp = str(now // SECOND)
    return {"timestamp": timestamp, "sign": _signed(f"{timestamp}\n{notification.secret.reveal()}".encode(), b"")}


def _signed(key: bytes, text: bytes) -> str:
    return base64.b64encode(hmac.digest(key, text, "sha256")).decode()
