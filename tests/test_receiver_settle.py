"""The demo operator's settles over real sockets, and what it asks of callers: tokens, OAuth2, headers, signatures.

The sender's own code writes what is posted here where there is such code, so that the two sides are held together.
"""

import base64
import dataclasses
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from dispatcher.cli import main
from dispatcher.ground.clock import MILLISECOND, MINUTE, SECOND
from dispatcher.ground.errors import Refused, Unfit
from dispatcher.ground.events import parse_json
from dispatcher.ground.operator import Auth, ClientAuth, Mint, OAuth, Operator, Signing, TimeUnit
from dispatcher.ground.policy import Outcome, Rule, read_answer
from dispatcher.ground.secret import Secret
from dispatcher.protocols import settle as protocol
from dispatcher.protocols.credentials import minted_token, signature_headers
from dispatcher.receiver import Faults, Receiver, Seen, serve
from dispatcher.seal import Seal
from tests.ground import KEY, NOW, claim, config_with, line, operator, read_fields, settle_event
from tests.story import NO_TLS, free_port
from tests.test_receiver import BEARER, letter, running

pytestmark = pytest.mark.anyio

PATH = "/callback/settle"
NOTICE_PATH = "/Demo/notice"
TX = "tx-0001"
BOOKED = ("acme", "settle", TX)
TS = "2026-01-01T08:00:00.000+0800"
SENT = {"ts": TS, **{name: value for name, value in settle_event().items() if name not in ("operator", "type")}}
SENT |= {"commission": "0.0"}
NOTHING: Mapping[str, str] = {}

MINT = Mint(account="agent-7", username=None, wallet=1, time_unit=TimeUnit.SECONDS)
OAUTH = OAuth("https://acme.example/oauth/token", "us & them", Secret("s%cret:+ü"), "callbacks", ClientAuth.BASIC)
KEYS = [Secret("whsec_" + base64.b64encode(bytes([number]) * 32).decode()) for number in (1, 2, 3)]
GRANT = {"grant_type": "client_credentials", "scope": "callbacks"}


class Clock:
    """Stands at NOW until it is moved."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> int:
        return self.at


def acme(auth: Auth = Auth.NONE, **changes: Any) -> Operator:
    """Acme with both message types, both with this auth."""
    both = operator(**changes)
    urls = {"notice": f"https://acme.example{NOTICE_PATH}", "settle": f"https://acme.example{PATH}"}
    terms = {type_: dataclasses.replace(own, url=urls[type_], auth=auth) for type_, own in both.terms.items()}
    return dataclasses.replace(both, terms=terms)


@asynccontextmanager
async def playing(*played: Operator, **options: Any) -> AsyncIterator[tuple[Receiver, httpx.AsyncClient]]:
    async with (
        serve(played or [acme()], **{"clock": Clock(), **options}) as receiver,
        httpx.AsyncClient(base_url=receiver.url, timeout=60, verify=NO_TLS, trust_env=False) as client,
    ):
        yield receiver, client


def body(*without: str, **changes: str) -> bytes:
    """A settle's body; `changes` put JSON text in place of a field's value."""
    return line(SENT, without, **changes).encode()


async def post(client: httpx.AsyncClient, content: bytes, headers: Mapping[str, str] = NOTHING) -> httpx.Response:
    return await client.post(PATH, content=content, headers=headers)


def said(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# What it books


async def test_a_settle_as_the_protocol_writes_it_is_booked_field_by_field() -> None:
    event = protocol.freeze(acme(), read_fields(parse_json(line(SENT, ("ts", "commission"))), protocol.FIELDS))
    sent = protocol.body(acme(), claim(type="settle", body=event.body), lambda plaintext: "", NOW + 999)
    async with playing() as (_, client):
        answer = await post(client, sent)
        assert (answer.status_code, answer.json()) == (200, {"code": "0000", "desc": "ok"})
        content = {name: value for name, value in SENT.items() if name != "ts"}
        row = {"operator": "acme", "type": "settle", **content, "times": 1, "last_ts": TS}
        assert (await client.get("/received")).json() == [row]


async def test_every_field_may_be_as_long_and_as_strange_as_the_contract_lets_it() -> None:
    changes = {name: json.dumps("é" * longest) for name, longest in (("gameType", 10), ("userId", 50), ("txId", 20))}
    changes |= {"odds": '"-0.5"', "winAmount": '"12345678901234567890.1234"', "fee": '"0.0"', "result": "[]"}
    async with playing() as (_, client):
        assert said(await post(client, body(**changes))) == (200, "0000")


async def test_another_attempt_differs_in_ts_alone_and_is_success_again_but_booked_once() -> None:
    later = "2026-01-01T08:01:00.000+0800"
    async with playing() as (receiver, client):
        await post(client, body())
        again = await post(client, body(ts=json.dumps(later)))
        assert (again.status_code, again.json()) == (200, {"code": "0000", "desc": "ok, known already"})
        assert (receiver.booked[BOOKED].times, receiver.booked[BOOKED].last_ts) == (2, later)
        assert receiver.stats == {"requests": 2, "booked": 1, "duplicates": 1, "refused": 0, "faulted": 0}


@pytest.mark.parametrize("change", [{"winAmount": '"13.0"'}, {"result": '["A"]'}, {"fee": '"0.1"'}])
async def test_other_content_under_a_known_tx_id_is_1016_under_200_and_the_first_stands(change: dict[str, str]) -> None:
    async with playing() as (receiver, client):
        await post(client, body())
        assert said(await post(client, body(**change))) == (200, "1016")
        assert receiver.booked[BOOKED].content["winAmount"] == "12.5"
        assert (receiver.booked[BOOKED].times, receiver.stats["refused"]) == (1, 1)


async def test_both_types_stand_in_the_books_even_under_one_key_and_are_found_by_theirs() -> None:
    async with playing() as (receiver, client):
        await client.post(NOTICE_PATH, content=letter())
        await post(client, body(txId='"1767225600123457049"'))
        await post(client, body())
        assert [type_ for _, type_, _ in receiver.booked] == ["notice", "settle", "settle"]

        async def found(query: str) -> list[str]:
            return [row["type"] for row in (await client.get(f"/received?{query}")).json()]

        assert await found("") == ["notice", "settle", "settle"]
        assert await found("txId=1767225600123457049") == ["settle"]
        assert await found("order_no=1767225600123457049") == ["notice"]
        assert await found(f"order_no=1767225600123457049&txId={TX}") == ["notice", "settle"]
        assert await found("txId=") == []


async def test_an_operator_that_takes_settles_alone_has_no_endpoint_for_notices() -> None:
    beta = config_with('[operators.beta]\ncallback_url = "https://beta.example/x/"').operators["beta"]
    async with playing(beta) as (_, client):
        assert said(await client.post("/x/settle", content=body())) == (200, "0000")
        assert (await client.post(NOTICE_PATH, content=letter())).status_code == 404


async def test_an_operator_with_codes_of_its_own_says_yes_by_them() -> None:
    both = acme()
    rule = Rule(field=("status",), extra=frozenset({"ok"}))
    terms = {**both.terms, "settle": dataclasses.replace(both.terms["settle"], rule=rule)}
    async with playing(dataclasses.replace(both, terms=terms)) as (_, client):
        answer = await post(client, body())
        outcome = Outcome(NOW, NOW, 0, http_status=answer.status_code, body=answer.content)
        assert read_answer(outcome, rule).failure is None
        conflict = await post(client, body(winAmount='"13.0"'))
        assert conflict.json().keys() == {"code", "desc"}


# What it refuses


@pytest.mark.parametrize("name", SENT)
async def test_a_missing_field_is_named(name: str) -> None:
    async with playing() as (receiver, client):
        answer = await post(client, body(name))
        assert (answer.status_code, answer.json()) == (200, {"code": "1002", "desc": f"body: {name} is missing"})
        assert not receiver.booked


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("ts", '"2026-01-01T00:00:00.000Z"'),
        ("ts", '"2026-01-01T08:00:00.000+08:00"'),
        ("ts", '"2026-01-01T08:00:00.000000+0800"'),
        ("ts", '"2026-02-30T08:00:00.000+0800"'),
        ("ts", "98765"),
        ("betTime", '"2022-10-14T15:00:00.000+0000"'),
        ("roundStartTime", '"2022-10-14 23:00:00.000+0800"'),
        ("gameType", '"98765987659"'),
        ("gameCode", '""'),
        ("userId", "98765"),
        ("txId", '"987659876598765987659"'),
        ("roundId", "null"),
        ("status", '" 98765"'),
        ("betAmount", '"98765"'),
        ("betAmount", '"9.87651"'),
        ("betAmount", '"98.765e2"'),
        ("betAmount", '"+98.765"'),
        ("betAmount", '"098.765"'),
        ("betAmount", "98.765"),
        ("validBetAmount", '"-98.765"'),
        ("winAmount", '"-0.0"'),
        ("odds", '"98765"'),
        ("commission", '"NaN"'),
        ("fee", "null"),
        ("result", '"98765"'),
        ("result", "[98765]"),
    ],
)
async def test_a_value_that_is_not_as_agreed_is_named_and_never_shown(field: str, text: str) -> None:
    async with playing() as (receiver, client):
        answer = await post(client, body(**{field: text}))
        assert (answer.status_code, answer.json()["code"]) == (200, "1002")
        assert answer.json()["desc"] == f"body: {field} is not as agreed"
        assert not receiver.booked


async def test_every_field_at_fault_is_named_and_those_that_nobody_knows_are_ignored() -> None:
    async with playing() as (receiver, client):
        answer = await post(client, body("roundId", betAmount="98765", later='"98765"'))
        assert answer.json()["desc"] == "body: roundId is missing, betAmount is not as agreed"
        assert said(await post(client, body(later='"98765"'))) == (200, "0000")
        (booked,) = receiver.booked.values()
        assert "later" not in booked.content


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{", b'{"txId":"1","txId":"1"}', b"[" * 100_000])
async def test_a_body_that_is_no_settle_is_1002(content: bytes) -> None:
    async with playing() as (receiver, client):
        assert said(await post(client, content)) == (200, "1002")
        assert receiver.stats["refused"] == 1


# Whom it trusts


@pytest.mark.parametrize(("auth", "token"), [(Auth.BEARER, "the-token-of-acme"), (Auth.PER_EVENT, "players-own")])
async def test_a_settle_without_the_token_stays_a_401(auth: Auth, token: str) -> None:
    async with playing(acme(auth)) as (_, client):
        assert (await post(client, body())).status_code == 401
        assert said(await post(client, body(), {"Authorization": f"Bearer {token}"})) == (200, "0000")


async def test_each_type_has_an_auth_of_its_own() -> None:
    both = acme(Auth.BEARER)
    terms = {**both.terms, "settle": dataclasses.replace(both.terms["settle"], auth=Auth.NONE)}
    async with playing(dataclasses.replace(both, terms=terms)) as (_, client):
        assert said(await post(client, body())) == (200, "0000")
        assert (await client.post(NOTICE_PATH, content=letter())).status_code == 401
        assert (await client.post(NOTICE_PATH, content=letter(), headers=BEARER)).status_code == 200


def minted(mint: Mint = MINT, uid: str = "player-1", now: int = NOW, key: str = KEY) -> dict[str, str]:
    """The headers with a token as the sender mints it."""
    reading = operator().reading
    assert reading
    seal = Seal(dataclasses.replace(reading, key=key.encode()))
    return {"Authorization": f"Bearer {minted_token(mint, uid, now, seal.seal).reveal()}"}


async def test_a_minted_token_opens_with_the_operators_key_and_speaks_for_one_player() -> None:
    async with playing(acme(Auth.MINTED, mint=MINT)) as (_, client):
        assert said(await post(client, body(), minted())) == (200, "0000")
        assert (await client.post(NOTICE_PATH, content=letter(), headers=minted())).status_code == 200
        other = await post(client, body(), minted(uid="player-2"))
        assert said(other) == (401, "401")
        assert other.json()["message"] == "the bearer token is not the one of this player"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer the-token-of-acme"},
        {"Authorization": minted()["Authorization"].removeprefix("Bearer ")},
        {"Authorization": minted()["Authorization"][:-4]},
        minted(key="fedcba9876543210"),
        minted(dataclasses.replace(MINT, account="agent-8")),
        minted(dataclasses.replace(MINT, username="somebody")),
        minted(dataclasses.replace(MINT, wallet="1")),
        minted(dataclasses.replace(MINT, time_unit=TimeUnit.MILLISECONDS)),
        minted(now=NOW - 6 * MINUTE),
    ],
    ids=["none", "empty", "static", "bare", "cut", "key", "account", "username", "wallet", "unit", "old"],
)
async def test_a_minted_token_that_is_not_as_agreed_is_refused_and_not_told(headers: dict[str, str]) -> None:
    async with playing(acme(Auth.MINTED, mint=MINT)) as (receiver, client):
        answer = await post(client, body(), headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert not set(headers.values()) & set(answer.text.split())
        assert not receiver.booked


@pytest.mark.parametrize("claims", ["{}", "[]", "rubbish", {"uid": 1}, {"time": "1767225600"}, {"more": 1}])
async def test_a_minted_token_that_says_something_else_is_refused(claims: str | dict[str, object]) -> None:
    whole = {"account": "agent-7", "uid": "player-1", "time": NOW // SECOND, "username": "player-1", "wallet": 1}
    text = claims if isinstance(claims, str) else json.dumps(whole | claims)
    reading = operator().reading
    assert reading
    token = Seal(reading).seal(text.encode())
    async with playing(acme(Auth.MINTED, mint=MINT)) as (_, client):
        assert said(await post(client, body(), {"Authorization": f"Bearer {token}"})) == (401, "401")


async def test_operators_with_minted_tokens_at_one_path_are_told_apart_by_account() -> None:
    other = dataclasses.replace(MINT, account="agent-8")
    both = acme(Auth.MINTED, mint=MINT), acme(Auth.MINTED, mint=other, name="beta")
    async with playing(*both) as (receiver, client):
        await post(client, body(), minted(other))
        assert list(receiver.booked) == [("beta", "settle", TX)]


async def test_a_token_of_a_foreign_token_endpoint_can_be_any_but_must_be_there() -> None:
    elsewhere = dataclasses.replace(OAUTH, token_url="https://login.example/token")
    async with playing(acme(Auth.OAUTH2, oauth=elsewhere)) as (_, client):
        assert (await post(client, body())).status_code == 401
        assert said(await post(client, body(), {"Authorization": "Bearer anything"})) == (200, "0000")
        assert (await client.post("/token", data=GRANT)).status_code == 404


def basic(pair: str = "us+%26+them:s%25cret%3A%2B%C3%BC") -> dict[str, str]:
    """The client's id and secret, form-encoded each, as RFC 6749 wants them."""
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


async def test_a_token_endpoint_beside_the_callbacks_gives_the_only_tokens_that_are_taken() -> None:
    clock = Clock()
    async with playing(acme(Auth.OAUTH2, oauth=OAUTH), clock=clock) as (receiver, client):
        assert (await post(client, body(), {"Authorization": "Bearer anything"})).status_code == 401
        granted = await client.post("/oauth/token", data=GRANT, headers=basic())
        assert (granted.status_code, granted.headers["cache-control"]) == (200, "no-store")
        token = granted.json().pop("access_token")
        assert granted.json() == {"access_token": token, "token_type": "Bearer", "expires_in": 3600}
        headers = {"Authorization": f"Bearer {token}"}
        assert said(await post(client, body(), headers)) == (200, "0000")
        assert (await client.post(NOTICE_PATH, content=letter(), headers=headers)).status_code == 200
        clock.at += 3600 * SECOND
        assert (await post(client, body(), headers)).status_code == 401
        assert receiver.stats == {"requests": 4, "booked": 2, "duplicates": 0, "refused": 2, "faulted": 0}


@pytest.mark.parametrize(
    ("form", "headers", "status", "error"),
    [
        (GRANT, NOTHING, 401, "invalid_client"),
        (GRANT, basic("us+%26+them:other"), 401, "invalid_client"),
        (GRANT, basic("us+%26+them"), 401, "invalid_client"),
        (GRANT, {"Authorization": "Basic é".encode()}, 401, "invalid_client"),
        (GRANT | {"client_id": "us & them", "client_secret": "s%cret:+ü"}, NOTHING, 401, "invalid_client"),
        ({"scope": "callbacks"}, basic(), 400, "invalid_request"),
        (GRANT | {"grant_type": "password"}, basic(), 400, "unsupported_grant_type"),
        (GRANT | {"scope": "everything"}, basic(), 400, "invalid_scope"),
    ],
)
async def test_a_token_is_refused_in_the_words_of_rfc_6749(
    form: dict[str, str], headers: Any, status: int, error: str
) -> None:
    heard: list[Seen] = []
    async with playing(acme(Auth.OAUTH2, oauth=OAUTH), tell=heard.append) as (_, client):
        answer = await client.post("/oauth/token", data=form, headers=headers)
        assert (answer.status_code, answer.json()) == (status, {"error": error})
        assert (await client.get("/oauth/token")).status_code == 405
    assert [(seen.status, seen.type, seen.key) for seen in heard] == [(status, "token", None), (405, None, None)]


async def test_a_client_that_posts_its_secret_is_known_by_that_and_not_by_both() -> None:
    posting = dataclasses.replace(OAUTH, client_auth=ClientAuth.POST, scope=None)
    form = {"grant_type": "client_credentials", "client_id": "us & them", "client_secret": "s%cret:+ü"}
    async with playing(acme(Auth.OAUTH2, oauth=posting)) as (_, client):
        assert (await client.post("/oauth/token", data=form)).status_code == 200
        assert (await client.post("/oauth/token", data=form, headers=basic())).status_code == 401
        assert (await client.post("/oauth/token", json=form)).status_code == 401


async def test_a_token_of_one_client_is_no_token_of_another() -> None:
    beta = acme(Auth.OAUTH2, oauth=dataclasses.replace(OAUTH, client_id="beta", scope=None), name="beta")
    async with playing(acme(Auth.OAUTH2, oauth=OAUTH), beta) as (receiver, client):
        form = {"grant_type": "client_credentials"}
        granted = await client.post("/oauth/token", data=form, headers=basic("beta:s%25cret%3A%2B%C3%BC"))
        await post(client, body(), {"Authorization": f"Bearer {granted.json()['access_token']}"})
        assert list(receiver.booked) == [("beta", "settle", TX)]


async def test_a_token_endpoint_where_callbacks_are_posted_to_is_refused() -> None:
    with pytest.raises(Refused, match=r"acme \(settle\) is posted to where tokens are given out"):
        async with playing(
            acme(Auth.OAUTH2, oauth=dataclasses.replace(OAUTH, token_url=f"https://acme.example{PATH}"))
        ):
            pass


@pytest.mark.parametrize("auth", [Auth.NONE, Auth.PER_EVENT, Auth.MINTED])
async def test_two_operators_who_ask_for_the_same_are_refused(auth: Auth) -> None:
    one = acme(auth, mint=MINT if auth is Auth.MINTED else None)
    with pytest.raises(Refused, match="have the same path and token"):
        async with playing(one, dataclasses.replace(one, name="beta")):
            pass


async def test_the_operators_own_headers_must_be_there_and_their_values_are_not_told() -> None:
    headers = {"X-Api-Key": Secret("key-98765"), "X-Agent": Secret("agent 7")}
    right = {name: value.reveal() for name, value in headers.items()}
    async with playing(acme(headers=headers)) as (_, client):
        assert said(await post(client, body(), right)) == (200, "0000")
        for wrong in (NOTHING, {"X-Agent": "agent 7"}, right | {"X-Api-Key": "key-9876"}):
            answer = await post(client, body(), wrong)
            assert answer.status_code == 401
            assert answer.json()["message"] == "the header X-Api-Key is missing or not as agreed"


async def test_operators_at_one_path_are_told_apart_by_their_headers() -> None:
    keys = [acme(name=name, headers={"X-Api-Key": Secret(name)}) for name in ("acme", "beta")]
    async with playing(*keys) as (receiver, client):
        await post(client, body(), {"x-api-key": "beta"})
        assert list(receiver.booked) == [("beta", "settle", TX)]


def signed(content: bytes, *secrets: Secret, now: int = NOW) -> dict[str, str]:
    return dict(signature_headers(Signing(secrets), "dlv_1", content, now))


async def test_a_signature_under_any_of_the_secrets_is_right() -> None:
    async with playing(acme(signing=Signing((KEYS[0], KEYS[1])))) as (_, client):
        for secrets in ([KEYS[0]], [KEYS[1]], [KEYS[2], KEYS[1]], [KEYS[0], KEYS[1]]):
            assert said(await post(client, body(), signed(body(), *secrets))) == (200, "0000")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"webhook-id": ""}, "the signature is incomplete: webhook-id missing or twice"),
        ({"webhook-id": "dlv_2"}, "the signature in webhook-signature is not right"),
        ({"webhook-timestamp": str(NOW // SECOND + 1)}, "the signature in webhook-signature is not right"),
        ({"webhook-timestamp": str(NOW // MILLISECOND)}, "the signature's webhook-timestamp is not in seconds"),
        ({"webhook-timestamp": "-1"}, "the signature's webhook-timestamp is not in seconds"),
        ({"webhook-signature": "v1,AAAA"}, "the signature in webhook-signature is not right"),
        (signed(body(), KEYS[2]), "the signature in webhook-signature is not right"),
        (signed(body() + b" ", KEYS[0]), "the signature in webhook-signature is not right"),
        (signed(body(), KEYS[0], now=NOW - 6 * MINUTE), "the signature's webhook-timestamp is not in seconds, or over"),
    ],
)
async def test_a_signature_that_is_not_right_is_refused_with_why(changes: dict[str, str], told: str) -> None:
    async with playing(acme(signing=Signing((KEYS[0],)))) as (receiver, client):
        answer = await post(client, body(), signed(body(), KEYS[0]) | changes)
        assert answer.status_code == 401
        assert answer.json()["message"].startswith(told)
        assert not receiver.booked


async def test_a_request_without_any_signature_is_told_what_is_missing() -> None:
    async with playing(acme(signing=Signing((KEYS[0],)))) as (_, client):
        told = (await client.post(NOTICE_PATH, content=letter())).json()["message"]
        assert told == (
            "the signature is incomplete: webhook-id and webhook-timestamp and webhook-signature missing or twice"
        )


# The faults


async def test_a_code_on_demand_is_a_no_under_200_for_each_settle_and_no_notice() -> None:
    heard: list[Seen] = []
    async with playing(faults=Faults(code="1005", fail_first=2), tell=heard.append) as (receiver, client):
        answers = [await post(client, body()) for _ in range(3)]
        assert [said(answer) for answer in answers] == [(200, "1005"), (200, "1005"), (200, "0000")]
        assert answers[0].json() == {"code": "1005", "desc": "a fault on demand"}
        assert (await client.post(NOTICE_PATH, content=letter())).json()["code"] == "0000"
        assert (receiver.stats["booked"], receiver.stats["faulted"]) == (2, 2)
    assert [seen.fault for seen in heard] == ["code 1005", "code 1005", None, None]


async def test_a_code_on_demand_can_come_after_the_booking() -> None:
    async with playing(faults=Faults(code="1005", book_first=True)) as (receiver, client):
        assert said(await post(client, body())) == (200, "1005")
        assert receiver.booked[BOOKED].times == 1


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"hang": True}, {"reset": True}, {"redirect": "http://127.0.0.1:1/x"}]
)
async def test_a_settle_meets_the_faults_of_a_notice(fault: dict[str, Any]) -> None:
    async with playing(faults=Faults(**fault, book_first=True, fail_first=1)) as (receiver, client):
        with suppress(httpx.ReadTimeout, httpx.ReadError):
            answer = await client.post(PATH, content=body(), timeout=1)
            assert answer.status_code in (500, 302)
        assert receiver.booked[BOOKED].times == 1
        assert said(await post(client, body())) == (200, "0000")
        assert receiver.stats["faulted"] == 1


async def test_fail_first_counts_each_tx_id_apart_from_the_order_of_the_same_number() -> None:
    async with playing(faults=Faults(fail_first=1)) as (_, client):
        number = {"txId": '"1767225600123457049"'}
        statuses = [(await post(client, body(**number))).status_code for _ in range(2)]
        assert statuses == [500, 200]
        assert (await client.post(NOTICE_PATH, content=letter())).status_code == 500


async def test_the_watcher_hears_of_each_settle_what_became_of_it() -> None:
    heard: list[Seen] = []
    async with playing(tell=heard.append) as (_, client):
        for content in (body(), body(), body(odds='"2.0"'), body(odds="2"), b"{}"):
            await post(client, content)
    assert [seen[1:] for seen in heard] == [
        ("acme", None, 200, True, None, "settle", TX, None),
        ("acme", None, 200, False, None, "settle", TX, None),
        ("acme", None, 200, False, None, "settle", TX, "1016"),
        ("acme", None, 200, False, None, "settle", TX, "1002"),
        ("acme", None, 200, False, None, "settle", None, "1002"),
    ]


def test_a_code_that_no_line_can_show_is_refused() -> None:
    with pytest.raises(Unfit, match="--code is no code"):
        Faults(code="10\n05")


# The command


@pytest.fixture
def configuration(tmp_path: Path) -> Iterator[Path]:
    """A configuration whose first operator takes settles alone, on a free port of this machine."""
    with free_port() as port:
        path = tmp_path / "config.toml"
        path.write_text(
            f"""
[egress]
allow = ["127.0.0.0/8"]
[operators.acme]
callback_url = "http://127.0.0.1:{port}/callback"
[operators.beta]
notice_url = "http://127.0.0.1:{port}/Demo/notice"
callback_url = "https://beta.example/callback"
auth = "none"
crypto = {{ key = "{KEY}", iv = "{KEY}" }}
""",
            "utf-8",
        )
        yield path


def test_the_command_listens_where_settles_are_posted_to_and_names_them(configuration: Path) -> None:
    with running(configuration, "--code", "1005", "--fail-first", "1", "--operator", "acme") as (process, url):
        assert f'"{url}/callback"' in configuration.read_text("utf-8")
        assert process.stderr
        for content, told in (
            (body(), "acme tx-0001: 200 (fault: code 1005)\n"),
            (body(), "acme tx-0001: 200, booked\n"),
            (body(odds='"2.0"'), "acme tx-0001: 200 1016\n"),
        ):
            assert (
                httpx.post(url + PATH, content=content, verify=NO_TLS, trust_env=False, timeout=60).status_code == 200
            )
            assert process.stderr.readline() == told


def test_the_command_warns_of_each_url_that_points_elsewhere(configuration: Path) -> None:
    port = configuration.read_text("utf-8").partition("127.0.0.1:")[2].partition("/")[0]
    with socket.create_server(("127.0.0.1", int(port))):
        # The command stops here, at its port; by then it has warned.
        result = CliRunner().invoke(main, ["receiver", "-c", str(configuration)])
    warnings = [text for text in result.stderr.splitlines() if text.startswith("Warning: ")]
    assert warnings == [
        "Warning: the callback_url of beta points elsewhere, to beta.example;"
        " play it by a receiver of its own, with --operator and --listen"
    ]


def test_the_command_can_not_listen_where_a_foreign_callback_is(configuration: Path) -> None:
    text = configuration.read_text("utf-8").replace("http://127.0.0.1", "https://127.0.0.1")
    configuration.write_text(text, "utf-8")
    result = CliRunner().invoke(main, ["receiver", "-c", str(configuration), "--operator", "acme"])
    assert result.exit_code == 2
    assert "Error: the callback_url of acme is not plain http on this machine" in result.stderr
