"""What an attempt proves itself with: the minted token, and the signature checked against the specification's words."""

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.ground.crypto import (
    CipherName,
    CryptoReading,
    IvEncoding,
    IvMode,
    KeyEncoding,
    Output,
    read_iv,
    read_key,
)
from dispatcher.ground.errors import Unfit
from dispatcher.ground.operator import Mint, Signing, TimeUnit
from dispatcher.ground.secret import Secret
from dispatcher.protocols.credentials import message_id, minted_token, signature_headers
from dispatcher.seal import Seal
from tests.ground import claim

NOW = 1_767_225_600_999_999  # 2026-01-01T00:00:00.999999Z
KEY, IV = "0123456789abcdef", "A1b2C3d4E5f6G7h8"
MINT = Mint(account="agent-1", username=None, wallet="main", time_unit=TimeUnit.SECONDS)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(bytes(range(64))).decode()


def plain(mint: Mint = MINT, uid: str = "player-1", now: int = NOW) -> str:
    """What is sealed."""
    return bytes.fromhex(minted_token(mint, uid, now, bytes.hex).reveal()).decode()


def signing(*secrets: str) -> Signing:
    return Signing(tuple(map(Secret, secrets)))


# The minted token.


def test_a_minted_token_is_the_five_fields_in_their_order_without_a_blank() -> None:
    assert plain() == ('{"account":"agent-1","uid":"player-1","time":1767225600,"username":"player-1","wallet":"main"}')


def test_its_time_is_cut_to_the_unit_and_never_rounded_up() -> None:
    assert '"time":1767225600,' in plain()
    assert '"time":1767225600999,' in plain(MINT.__class__("a", None, "main", TimeUnit.MILLISECONDS))


def test_a_username_that_is_given_stands_where_the_uid_would() -> None:
    mint = Mint("agent-1", "the-agent", 7, TimeUnit.SECONDS)
    assert plain(mint).endswith('"username":"the-agent","wallet":7}')
    assert plain(Mint("a", "", "", TimeUnit.SECONDS)).endswith('"username":"","wallet":""}')


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_stands_in_it_is_utf8_json_without_escapes_that_json_does_not_need(account: str, uid: str) -> None:
    text = plain(Mint(account, None, -(2**70), TimeUnit.SECONDS), uid)
    wanted = {"account": account, "uid": uid, "time": NOW // 10**6, "username": uid, "wallet": -(2**70)}
    assert json.loads(text) == wanted
    assert "投" not in account or "投" in text


def test_a_player_with_a_chinese_name_stands_in_it_as_written() -> None:
    assert '"uid":"玩家-1"' in plain(uid="玩家-1")


@pytest.mark.parametrize("output", list(Output))
def test_a_minted_token_is_sealed_with_the_operators_key_and_can_stand_in_a_header(output: Output) -> None:
    key = read_key(KEY, KeyEncoding.UTF8, CipherName.AES_128_CBC)
    iv = read_iv(IV, IvMode.FIXED, IvEncoding.UTF8, key)
    seal = Seal(CryptoReading(CipherName.AES_128_CBC, key, iv, output=output))
    token = minted_token(MINT, "player-1", NOW, seal.seal)
    assert seal.open(token.reveal()).decode() == plain()
    assert token.reveal().isascii()
    assert token.reveal().isprintable()


@pytest.mark.parametrize("sealed", ["", "a b", "a\r\nX-Evil: 1", "a\0", "投"])
def test_a_sealed_text_that_no_header_can_carry_is_refused_and_not_shown(sealed: str) -> None:
    with pytest.raises(Unfit, match="no header can carry") as error:
        minted_token(MINT, "player-1", NOW, lambda _: sealed)
    assert "Evil" not in str(error.value)


# The signature.


def test_a_delivery_keeps_its_id_through_every_attempt_and_every_release() -> None:
    """An operator that keeps the ids of what it has booked would take a delivery with another one for a new one."""
    assert message_id(claim()) == message_id(claim(id=2, attempt=3, token=8)) == "dlv_789743006b7e5c4b29f639fe82b13c51"
    others = {message_id(claim(**{name: "other"})) for name in ("operator", "type", "key")}
    assert len(others | {message_id(claim())}) == 4


def test_the_example_that_the_specification_publishes_comes_out() -> None:
    headers = signature_headers(
        signing(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1_614_265_330_000_000
    )
    assert headers == [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]


def verified(headers: list[tuple[str, str]], body: bytes, secret: str) -> int:
    """How many of the signatures hold, by the words of the specification and with another way to compute them."""
    by_name = dict(headers)
    content = by_name["webhook-id"].encode() + b"." + by_name["webhook-timestamp"].encode() + b"." + body
    mac = hmac.new(base64.b64decode(secret.split("_", 1)[1]), digestmod=hashlib.sha256)
    mac.update(content)
    own = base64.b64encode(mac.digest()).decode()
    given_ = [one.split(",") for one in by_name["webhook-signature"].split(" ")]
    assert all(version == "v1" for version, _ in given_)
    return sum(signature == own for _, signature in given_)


@given(st.binary(max_size=200), st.integers(0, 2**52))
def test_a_signature_holds_for_exactly_these_bytes(body: bytes, now: int) -> None:
    headers = signature_headers(signing(SECRET), "dlv_1", body, now)
    assert dict(headers)["webhook-timestamp"] == str(now // 1_000_000)
    assert verified(headers, body, SECRET) == 1
    assert verified(headers, body + b"\n", SECRET) == 0
    assert verified([("webhook-id", "dlv_2"), *headers[1:]], body, SECRET) == 0


def test_during_a_rotation_there_is_one_for_each_secret_and_the_one_in_force_is_first() -> None:
    headers = signature_headers(signing(OTHER, SECRET), "dlv_1", b"{}", NOW)
    assert verified(headers, b"{}", OTHER) == verified(headers, b"{}", SECRET) == 1
    first, second = dict(headers)["webhook-signature"].split(" ")
    assert first == dict(signature_headers(signing(OTHER), "dlv_1", b"{}", NOW))["webhook-signature"]
    assert second == dict(signature_headers(signing(SECRET), "dlv_1", b"{}", NOW))["webhook-signature"]


def test_a_secret_that_is_none_is_refused_and_not_shown() -> None:
    with pytest.raises(Unfit) as error:
        signature_headers(signing("whsec_c2hvcnQ="), "dlv_1", b"{}", NOW)
    assert "c2hvcnQ" not in str(error.value)
