"""The readers of single settings: what passes, to the last value, what is refused and why; no secret is shown."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ground.clock import DAY, HOUR
from dispatcher.ground.errors import Unfit
from dispatcher.ground.place import Server
from dispatcher.ground.readers import (
    address_and_port,
    delays,
    header_name,
    header_value,
    http_statuses,
    json_path,
    json_values,
    kept_for,
    operator_url,
    place,
    webhook_key,
    webhook_secret,
)


def refused(reader: Callable[[Any], object], text: object) -> str:
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
        ("S" * 4097, "has 4097 characters"),
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


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([1, 1, 1], '1 is not a duration; write "1s"'),
        (["1m", 0.5], '0.5 is not a duration; write it in quotes, like "1m"'),
        (["1m", True], 'true is not a duration; write it in quotes, like "1m"'),
        ("1s", '1s is not a list of durations; put it in a list, like ["1m", "30m", "50m"]'),
        (60, '60 is not a list of durations; write e.g. ["1m", "30m", "50m"]'),
    ],
)
def test_of_delays_the_one_that_is_no_duration_is_named(value: object, told: str) -> None:
    assert refused(delays, value) == told


@pytest.mark.parametrize("statuses", [[200], [200, 599], [204, 302]])
def test_a_list_of_http_statuses_is_taken(statuses: list[int]) -> None:
    assert http_statuses(statuses) == tuple(statuses)


@pytest.mark.parametrize("statuses", [[], [199], [600], [200, 600], [200.0], ["200"], [True], 200, "200", {}, None])
def test_what_is_no_list_of_http_statuses_is_refused(statuses: object) -> None:
    assert "is not a list of HTTP statuses" in refused(http_statuses, statuses)


@pytest.mark.parametrize("values", [[], ["0000"], [0, -1], [True, "yes"], [2**63 - 1, -(2**63)]])
def test_texts_whole_numbers_and_booleans_are_values_of_a_field(values: list[object]) -> None:
    assert json_values(values) == tuple(values)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ("0000", "is not a list of texts"),
        ({}, "is not a list of texts"),
        ([1.5], "is not a list of texts"),
        ([None], "is not a list of texts"),
        ([2**63], f"has {2**63}, which does not fit 64 bits"),
        ([-(2**63) - 1], f"has {-(2**63) - 1}, which does not fit 64 bits"),
        ([0, 2**64, "a", 2**65, 2**66], f"has {2**64}, which does not fit 64 bits"),
    ],
)
def test_what_no_database_could_hold_is_no_value(values: object, told: str) -> None:
    assert told in refused(json_values, values)


@pytest.mark.parametrize(
    ("text", "path"), [("code", ("code",)), ("data.result", ("data", "result")), ("投.a", ("投", "a"))]
)
def test_the_path_of_a_field_is_read(text: str, path: tuple[str, ...]) -> None:
    assert json_path(text) == path


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", 7, None, ["code"]])
def test_what_has_an_empty_part_is_no_path(text: object) -> None:
    assert "is not the path of a JSON field" in refused(json_path, text)


@pytest.mark.parametrize(
    ("text", "length"), [("never", None), ("1h", HOUR), ("3600s", HOUR), ("30d", 30 * DAY), ("36600d", 36_600 * DAY)]
)
def test_how_long_something_is_kept_is_an_hour_or_longer_a_hundred_years_or_for_ever(
    text: str, length: int | None
) -> None:
    assert kept_for(text) == length


@pytest.mark.parametrize("text", ["3599s", "59m", "36601d", "36235", "Never", "", 30, True, None])
def test_what_is_shorter_or_no_duration_is_not_kept(text: object) -> None:
    refused(kept_for, text)


@pytest.mark.parametrize(
    ("text", "read"),
    [("", None), ("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:65535", ("::1", 65_535)), ("a.b:1", ("a.b", 1))],
)
def test_an_address_of_this_machine_is_read_up_to_the_last_port(text: str, read: tuple[str, int] | None) -> None:
    assert address_and_port(text) == read


@pytest.mark.parametrize(
    "text", ["127.0.0.1:65536", "127.0.0.1:100000", "127.0.0.1", ":80", "-:80", "a b:80", 80, None]
)
def test_no_other_port_and_no_other_host(text: object) -> None:
    assert "is not an address and a port" in refused(address_and_port, text)


def test_an_operators_url_may_have_4096_characters_and_none_more() -> None:
    longest = "https://a.example/".ljust(4_096, "x")
    assert operator_url(longest, ()) == longest
    assert "has 4097 characters" in refused(lambda url: operator_url(url, ()), f"{longest}x")


@pytest.mark.parametrize(
    ("url", "told"),
    [("ftp://a.example/", "has the scheme ftp"), ("//a.example/", "has no scheme"), ("a.example/", "has no scheme")],
)
def test_a_url_of_another_scheme_or_of_none_is_told_apart(url: str, told: str) -> None:
    assert told in refused(lambda given: operator_url(given, ()), url)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://u:pä@h/db", "characters that a URL can't carry"),
        ("postgresql://u:p\x7f@h/db", "characters that a URL can't carry"),
        ("postgresql://u:p w@h/db", "characters that a URL can't carry"),
        ("postgresql://u:p#w@h/db", "characters that a URL can't carry"),
        ("postgresql://u:p@w@h/db", "has more than one @ before its host"),
        ("postgresql://h", "does not name one database"),
        ("postgresql://h/", "does not name one database"),
        ("postgresql://h/a/b", "does not name one database"),
    ],
)
def test_a_server_that_two_would_read_differently_is_refused(url: str, told: str) -> None:
    assert told in refused(lambda given: place(given, Path("/")), url)


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres"])
def test_a_server_is_one_place_however_it_is_written(scheme: str) -> None:
    read = place(f"{scheme}://u:p%40w@h:5/db", Path("/"))
    assert isinstance(read, Server)
    assert (read.url.reveal(), str(read)) == ("postgresql+psycopg://u:p%40w@h:5/db", "postgresql://u@h:5/db")
