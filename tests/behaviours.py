"""What an operator may do to whoever calls it: one table, each behaviour with the reason it must end with.

All are judged by `RULE`: 200 and a JSON object whose `code` is "0000".
"""

import base64
import gzip
import random
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from dispatcher.ground.policy import Reason, Rule
from tests.hostile import Act, Peer, endless, held, once

RULE = Rule(field=("code",), values=("0000",))
YES = b'{"code":"0000"}'
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# So much is more than may come before a body, and so much more than a body may be.
MUCH = 200_000
PAUSE = 0.01


class Behaviour(NamedTuple):
    """What it does on each connection, and the reason that an attempt ends with; None: the delivery is made."""

    act: Act
    reason: Reason | None


def answer(body: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    """A whole answer, with its right length."""
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (
        status,
        b"".join(b"%s\r\n" % one for one in headers),
        len(body),
        body,
    )


def chunked(*parts: bytes) -> bytes:
    return CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def redirect(status: int, *targets: bytes) -> Act:
    return held(answer(b"", b"%d Elsewhere" % status, *(b"Location: %s" % one for one in targets)))


async def _resets(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def _resets_within_the_body(peer: Peer) -> None:
    await peer.request()
    await peer.say(answer(YES)[:-3], pause=PAUSE)
    peer.reset()


async def _resets_behind_a_body_without_a_length(peer: Peer) -> None:
    """Where its end would be that of the body: a connection that broke has not ended it."""
    await peer.request()
    await peer.say(HEAD + b"\r\n" + YES, pause=0.2)
    peer.reset()


async def _says_what_it_hears(peer: Peer) -> None:
    await peer.say(await peer.request())
    await peer.gone()


def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(size // 1_000_000)) + packer.flush()


_GZIP = _bomb(50_000_000)
# Ten million zeros, as Node's zlib.brotliCompressSync packs them.
_BROTLI = base64.b64decode("y///P/gnAOKxQCD3/i//LDHwTwDEYRGAjiMG")
_RANDOM = random.Random(1)

_HANGS: Mapping[str, Act] = {
    "silence": held(),
    "100 and then silence": held(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "half a head": held(HEAD + b"Content-Le"),
    "half a body": held(answer(YES)[:-3]),
    "no end of the chunks": held(CHUNKED + b"f\r\n" + YES + b"\r\n"),
    "no length and no end": held(HEAD + b"\r\n" + YES),
    "a drip of the status line": endless(b"HTTP/1.1 200 ", b"O", PAUSE),
    "a drip of headers": endless(HEAD, b"A: b\r\n", PAUSE),
    "a drip of one header": endless(HEAD + b"A: ", b"a", PAUSE),
    "a drip of body": endless(HEAD + b"Content-Length: 60000\r\n\r\n", b"a", PAUSE),
    "a drip of body without a length": endless(HEAD + b"\r\n", b"a", PAUSE),
    "a drip of chunks": endless(CHUNKED, b"1\r\na\r\n", PAUSE),
    "a drip of one chunk's extension": endless(CHUNKED + b"1;", b"a", PAUSE),
    "a drip of trailers": endless(CHUNKED + b"0\r\n", b"A: b\r\n", PAUSE),
    "a drip of 100s": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", PAUSE),
}

_TOO_LARGE: Mapping[str, Act] = {
    "an endless body": endless(HEAD + b"\r\n", b"a" * 65_536),
    "an endless body with a length": endless(HEAD + b"Content-Length: 9999999999\r\n\r\n", b"a" * 65_536),
    "endless chunks": endless(CHUNKED, b"10000\r\n" + b"a" * 65_536 + b"\r\n"),
    "one chunk of 4 GiB": endless(CHUNKED + b"ffffffff\r\n", b"a" * 65_536),
    "endless JSON": endless(HEAD + b'\r\n{"code":"0000"', b',"a":1' * 10_000),
    "endless blanks behind a yes": endless(HEAD + b"\r\n" + YES, b" " * 65_536),
    "chunks of one byte": endless(CHUNKED, b"1\r\na\r\n" * 10_000),
    "endless gzip": endless(HEAD + b"Content-Encoding: gzip\r\n\r\n", _GZIP),
}

# From "two lengths" to "a CR in a header", what is no HTTP/1.1 is llhttp's to refuse, not ours: each of its leniencies
# is found by one of these rows (test_hostile.py); the others say what any release of it must refuse.
_RESETS: Mapping[str, Act] = {
    "a close without a word": once(),
    "a close after one byte": once(b"H"),
    "a close within the head": once(HEAD + b"Content-Le"),
    "a close within the body": once(answer(YES)[:-3]),
    "a close within a chunk": once(CHUNKED + b"f\r\n" + YES[:-3]),
    "a close before the last chunk": once(CHUNKED + b"f\r\n" + YES + b"\r\n"),
    "a close after 100": once(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "RST instead of an answer": _resets,
    "RST within the body": _resets_within_the_body,
    "RST behind a body without a length": _resets_behind_a_body_without_a_length,
    "too long a length": once(HEAD + b"Content-Length: 99\r\n\r\n" + YES),
    "two lengths": held(HEAD + b"Content-Length: 15\r\nContent-Length: 16\r\n\r\n" + YES),
    "the same length twice": held(HEAD + b"Content-Length: 15\r\nContent-Length: 15\r\n\r\n" + YES),
    "two lengths in one header": held(HEAD + b"Content-Length: 15, 15\r\n\r\n" + YES),
    "a negative length": held(HEAD + b"Content-Length: -15\r\n\r\n" + YES),
    "a length with a sign": held(HEAD + b"Content-Length: +15\r\n\r\n" + YES),
    "a length in hex": held(HEAD + b"Content-Length: 0xf\r\n\r\n" + YES),
    "a length of forty digits": held(HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n" + YES),
    "a length and chunks": held(chunked(YES).replace(b"Transfer", b"Content-Length: 15\r\nTransfer")),
    "chunks and a length": held(chunked(YES).replace(b"chunked", b"chunked\r\nContent-Length: 15")),
    "a chunk without its line's end": held(CHUNKED + b"f\r\n" + YES + b"0\r\n\r\n"),
    "blanks behind a chunk's size": held(CHUNKED + b"f  \r\n" + YES + b"\r\n0\r\n\r\n"),
    "endless chunks with long extensions": endless(CHUNKED, b"1;" + b"a" * 1_000 + b"\r\na\r\n"),
    "a chunk without a size": held(CHUNKED + b"\r\n" + YES + b"\r\n0\r\n\r\n"),
    "a chunk size in words": held(CHUNKED + b"fifteen\r\n" + YES + b"\r\n0\r\n\r\n"),
    "a negative chunk": held(CHUNKED + b"-f\r\n" + YES + b"\r\n0\r\n\r\n"),
    "a chunk size of forty digits": held(CHUNKED + b"f" * 40 + b"\r\n" + YES),
    "a chunk longer than its size": held(CHUNKED + b"5\r\n" + YES + b"\r\n0\r\n\r\n"),
    "lines that end in LF alone": held(HEAD.replace(b"\r", b"") + b"Content-Length: 15\n\n" + YES),
    "a status line that ends in CR alone": held(b"HTTP/1.1 200 OK\rContent-Length: 15\r\n\r\n" + YES),
    "a head that ends in CR alone": held(HEAD + b"Content-Length: 15\r\n\r" + YES),
    "101 Switching Protocols": held(
        b"HTTP/1.1 101 Switch\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x01a"
    ),
    "a flood of 100s": held(b"HTTP/1.1 100 Continue\r\n\r\n" * 30_000),
    "a flood of 103s with headers": held((b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </a>\r\n" * 100 + b"\r\n") * 200),
    "HTTP/0.9": once(b"<html>welcome</html>\r\n"),
    "HTTP/2": held(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00d\x00\x04\x00\x10\x00\x00"),
    "HTTP/7.3": held(b"HTTP/7.3 200 OK\r\nContent-Length: 15\r\n\r\n" + YES),
    "ICY": held(b"ICY 200 OK\r\n\r\n" + YES),
    "SSH": held(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "SMTP": held(b"220 mail.acme.example ESMTP\r\n"),
    "a TLS alert": held(b"\x15\x03\x03\x00\x02\x02\x28"),
    "our own request": _says_what_it_hears,
    "noise": held(_RANDOM.randbytes(5_000)),
    "zeros": held(bytes(5_000)),
    "no status": held(b"HTTP/1.1 OK\r\n\r\n"),
    "a status of two digits": held(b"HTTP/1.1 20 OK\r\nContent-Length: 15\r\n\r\n" + YES),
    "a status of four digits": held(b"HTTP/1.1 2000 OK\r\nContent-Length: 15\r\n\r\n" + YES),
    "a header without a colon": held(HEAD + b"nonsense\r\nContent-Length: 15\r\n\r\n" + YES),
    "a header without a name": held(HEAD + b": nameless\r\nContent-Length: 15\r\n\r\n" + YES),
    "a blank before the colon": held(HEAD + b"Content-Length : 15\r\n\r\n" + YES),
    "a header in two lines": held(HEAD + b"A: b\r\n c\r\nContent-Length: 15\r\n\r\n" + YES),
    "a NUL in a header": held(HEAD + b"A: \0\r\nContent-Length: 15\r\n\r\n" + YES),
    "a CR in a header": held(HEAD + b"A: b\rc\r\nContent-Length: 15\r\n\r\n" + YES),
    "a huge header": held(HEAD + b"A: " + b"a" * MUCH + b"\r\nContent-Length: 15\r\n\r\n" + YES),
    "a huge name of a header": held(HEAD + b"A" * MUCH + b": a\r\nContent-Length: 15\r\n\r\n" + YES),
    "fifty thousand headers": held(HEAD + b"A:\r\n" * 50_000 + b"Content-Length: 15\r\n\r\n" + YES),
    "a huge reason phrase": held(b"HTTP/1.1 200 " + b"O" * MUCH + b"\r\nContent-Length: 15\r\n\r\n" + YES),
    "a huge extension of a chunk": held(CHUNKED + b"f;" + b"a" * MUCH + b"\r\n" + YES + b"\r\n0\r\n\r\n"),
    "huge trailers": held(CHUNKED + b"f\r\n" + YES + b"\r\n0\r\n" + b"A: b\r\n" * 50_000 + b"\r\n"),
    "an endless head": endless(HEAD, b"A: b\r\n" * 10_000),
}

_REDIRECTS: Mapping[str, Act] = {
    "300 with choices": held(answer(b'{"code":"0000"}', b"300 Choose", b"Location: http://127.0.0.1/")),
    "301 to a public host": redirect(301, b"https://8.8.8.8/"),
    "302 to loopback": redirect(302, b"http://127.0.0.1:1/"),
    "302 to the metadata": redirect(302, b"http://169.254.169.254/latest/meta-data/"),
    "302 to itself": redirect(302, b"/Demo/notice"),
    "302 with a yes in it": held(answer(YES, b"302 Found", b"Location: /")),
    "303 See Other": redirect(303, b"/elsewhere"),
    "304 Not Modified": held(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 15\r\n\r\n"),
    "305 Use Proxy": redirect(305, b"http://127.0.0.1:1/"),
    "307 to a private address": redirect(307, b"http://10.0.0.1/"),
    "308 to another scheme": redirect(308, b"file:///etc/passwd"),
    "308 to a script": redirect(308, b"javascript:alert(1)"),
    "307 to no scheme": redirect(307, b"//169.254.169.254/"),
    "302 without a target": redirect(302),
    "302 to two targets": redirect(302, b"/a", b"http://127.0.0.1:1/"),
    "302 to a long target": redirect(302, b"/" + b"a" * 50_000),
    "302 to no URL": redirect(302, b"http://[::1/"),
    "302 and Refresh": held(answer(b"", b"302 Found", b"Refresh: 0; url=http://127.0.0.1:1/")),
}

_STATUSES: Mapping[str, Act] = {
    "204": held(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "201 with a yes": held(answer(YES, b"201 Created")),
    "206 with a yes": held(answer(YES, b"206 Partial Content", b"Content-Range: bytes 0-14/99")),
    "401 with a challenge": held(answer(b"", b"401 Who", b"WWW-Authenticate: Basic")),
    "407 as if it were a proxy": held(answer(b"", b"407 Who", b"Proxy-Authenticate: Basic")),
    "413": held(answer(b"", b"413 Too Large")),
    "421": held(answer(b"", b"421 Misdirected")),
    "429 with a Retry-After of thousands of digits": held(answer(b"", b"429 Slow", b"Retry-After: " + b"9" * 9_000)),
    "500 after 100 and 103": held(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\n\r\n" + answer(b"", b"500 No")),
    "503 with an endless body": endless(b"HTTP/1.1 503 No\r\n\r\n", b"a" * 65_536),
    "799": held(answer(YES, b"799 Odd")),
}

_NOT_JSON: Mapping[str, Act] = {
    "nothing": held(answer(b"")),
    "a page": held(answer(b"<html>welcome</html>", b"200 OK", b"Content-Type: text/html")),
    "a gzip bomb": held(answer(_GZIP[:60_000], b"200 OK", b"Content-Encoding: gzip")),
    "a gzip bomb three times over": held(answer(gzip.compress(_GZIP), b"200 OK", b"Content-Encoding: gzip, gzip")),
    "a yes in gzip": held(answer(gzip.compress(YES), b"200 OK", b"Content-Encoding: gzip")),
    "a brotli bomb": held(answer(_BROTLI, b"200 OK", b"Content-Encoding: br")),
    "gzip as a transfer encoding": held(
        chunked(gzip.compress(YES)).replace(b"Encoding: chunked", b"Encoding: gzip, chunked")
    ),
    "too short a length": held(HEAD + b"Content-Length: 9\r\n\r\n" + YES),
    "a length of zero and a body": held(HEAD + b"Content-Length: 0\r\n\r\n" + YES),
    "arrays in arrays": held(answer(b"[" * 60_000)),
    "objects in objects": held(answer(b'{"code":' * 7_000)),
    "a number of thousands of digits": held(answer(b'{"code":' + b"9" * 60_000 + b"}")),
    "an exponent of hundreds of digits": held(answer(b'{"code":1E' + b"9" * 500 + b"}")),
    "a yes and a no": held(answer(b'{"code":"0000","code":"9999"}')),
    "NaN": held(answer(b'{"code":"0000","a":NaN}')),
    "a byte that is no UTF-8": held(answer(b'{"code":"0000","a":"\xff"}')),
    "UTF-16": held(answer(YES.decode().encode("utf-16"))),
    "a yes and a NUL": held(answer(YES + b"\0")),
    "a yes in an array": held(answer(b"[" + YES + b"]")),
    "only text": held(answer(b'"0000"')),
}

# Some of these end as any no does, whatever becomes of their words: that no text breaks the record, a terminal or a
# line of the log is held where those are written (test_bad_input.py, test_proof.py).
_WRONG_FIELD: Mapping[str, Act] = {
    "a no": held(answer(b'{"code":"9999"}')),
    "half a character for a code": held(answer(rb'{"code":"\ud800","message":"\udfff"}')),
    "a NUL for a code": held(answer(rb'{"code":"\u0000000","message":"\u0000"}')),
    "a terminal's escapes": held(answer(rb'{"code":"\u001b[2J","message":"\u001b]0;x\u0007"}')),
    "a number for a code": held(answer(b'{"code":0}')),
    "an exponent": held(answer(b'{"code":1E999999999,"message":1E999999999}')),
    "a list for a code": held(answer(b'{"code":["0000"],"message":[[[[[[]]]]]]}')),
    "a code one level down": held(answer(b'{"data":{"code":"0000"}}')),
    "60 KiB of words": held(answer(b'{"code":"1","message":"' + b"x" * 60_000 + b'"}')),
}

_MADE: Mapping[str, Act] = {
    "a yes": held(answer(YES)),
    "a yes byte by byte": held(*(bytes([one]) for one in answer(YES))),
    "a yes in chunks of one byte": held(chunked(*(bytes([one]) for one in YES))),
    "a yes up to the close": once(HEAD + b"\r\n" + YES),
    "a yes up to the close after a 103 with a length": once(
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n" + HEAD + b"\r\n" + YES
    ),
    "a yes of HTTP/1.0": once(b"HTTP/1.0 200 OK\r\n\r\n" + YES),
    "a yes after ten 100s": held(b"HTTP/1.1 100 Continue\r\n\r\n" * 10 + answer(YES)),
    "a yes and another answer": held(answer(YES) + answer(b"", b"500 No")),
    "a yes and noise": held(answer(YES) + _RANDOM.randbytes(1_000)),
    "a yes with a false type": held(answer(YES, b"200 OK", b"Content-Type: image/png; charset=\xff")),
    "a yes with a false encoding": held(answer(YES, b"200 OK", b"Content-Encoding: br")),
    "a yes with cookies": held(answer(YES, b"200 OK", *(b"Set-Cookie: a%d=b" % n for n in range(500)))),
    "a yes with a mark before it": held(answer(b"\xef\xbb\xbf" + YES)),
}

_GROUPS: Mapping[Reason | None, Mapping[str, Act]] = {
    Reason.READ_TIMEOUT: _HANGS,
    Reason.BODY_TOO_LARGE: _TOO_LARGE,
    Reason.RESET: _RESETS,
    Reason.REDIRECT: _REDIRECTS,
    Reason.HTTP_STATUS: _STATUSES,
    Reason.BODY_NOT_JSON: _NOT_JSON,
    Reason.BODY_FIELD: _WRONG_FIELD,
    None: _MADE,
}
BEHAVIOURS: Mapping[str, Behaviour] = {
    name: Behaviour(act, reason) for reason, group in _GROUPS.items() for name, act in group.items()
}
