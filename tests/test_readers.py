"""The readers of headers and webhook secrets: what passes, what is refused and why, and that no secret is shown."""

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import Unfit
from dispatcher.readers import header_name, header_value, webhook_key, webhook_secret


def refused(reader: Callable[[str], object], text: str) -> str:
    """The fault; it says something, and what to write instead."""
    with pytest.raises(Unfit) as error:
        reader(text)
    assert error.value.fault
    assert error.value.mend
    return str(error.value)


@pytest.mark.parametrize("name", ["X-Api-Key", "Authorization", "x", "X_Under.Score", "!#$%&'*+-.^_`|~09", "Cookie"])
def test_a_token_of_rfc_9110_is_a_headers_name(name: str) -> None:
    assert header_name(name) == name


@pytest.mark.parametrize("name", ["", "X Y", "X:", "X\r\nY", "X\0", "投", "X\t", "(X)", "X/Y", '"X"', "X" * 101])
def test_what_is_no_token_is_no_headers_name(name: str) -> None:
    told = refused(header_name, name)
    assert "is not the name of a header" in told
    assert told.isprintable()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Host", "from the URL"),
        ("Content-Length", "from what it sends"),
        ("Content-Type", "from what it sends"),
        ("Transfer-Encoding", "from what it sends"),
        ("Connection", "belongs to the connection"),
        ("Keep-Alive", "belongs to the connection"),
        ("Proxy-Authorization", "for proxies"),
        ("Proxy-Connection", "for proxies"),
        ("TE", "belongs to the connection"),
        ("Trailer", "belongs to the connection"),
        ("Upgrade", "belongs to the connection"),
        ("Expect", "before it has the request"),
        ("User-Agent", "dispatcher's own"),
        ("Accept", "always */*"),
        ("Accept-Encoding", "none is unpacked"),
        ("Webhook-Id", "by the signature"),
        ("Webhook-Timestamp", "by the signature"),
        ("Webhook-Signature", "by the signature"),
    ],
)
def test_a_header_that_is_ours_to_set_is_refused_in_any_letters_with_the_reason(name: str, why: str) -> None:
    for one in (name, name.lower(), name.upper()):
        assert why in refused(header_name, one)


@pytest.mark.parametrize("text", ["a", "Basic YTpi", "a b\tc", "~", "a" * 4096, '{"a": 1}'])
def test_visible_ascii_with_blanks_inside_is_a_headers_value(text: str) -> None:
    assert header_value(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("SECRET" * 683, "has 4098 characters"),
        ("SECRET\r\nX-Evil: 1", "line break or NUL"),
        ("SECRET\n", "line break or NUL"),
        ("SEC\rRET", "line break or NUL"),
        ("SEC\0RET", "line break or NUL"),
        (" SECRET", "begins or ends with a blank"),
        ("SECRET\t", "begins or ends with a blank"),
        ("SECRET投", "can't carry"),
        ("SEC\x7fRET", "can't carry"),
        ("SECRETé", "can't carry"),
        ("SECRET\u2028", "can't carry"),
    ],
)
def test_another_value_is_refused_with_what_it_has_and_never_shown(text: str, why: str) -> None:
    told = refused(header_value, text)
    assert why in told
    assert "SEC" not in told


@given(st.text(max_size=50))
def test_no_value_that_passes_can_break_out_of_its_line(text: str) -> None:
    try:
        header_value(text)
    except Unfit:
        return
    assert text.isascii()
    assert text.strip() == text != ""
    assert all(one == "\t" or " " <= one <= "~" for one in text)


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_webhook_secret_is_24_to_64_bytes_in_base64(size: int) -> None:
    key = bytes(range(size))
    text = "whsec_" + base64.b64encode(key).decode()
    assert (webhook_secret(text), webhook_key(text)) == (text, key)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not begin with whsec_"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
        ("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "is not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_", "is not base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", "is not base64"),
        ("whsec_MfKQ9r8投", "is not base64"),
        ("whsec_", "stands for 0 bytes"),
        ("whsec_" + base64.b64encode(b"MfKQ" + bytes(19)).decode(), "stands for 23 bytes"),
        ("whsec_" + base64.b64encode(b"MfKQ" + bytes(61)).decode(), "stands for 65 bytes"),
    ],
)
def test_another_webhook_secret_is_refused_and_never_shown(text: str, why: str) -> None:
    told = refused(webhook_secret, text)
    assert why in told
    assert "MfKQ" not in told
    assert "TWZLU" not in told
