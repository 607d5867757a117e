"""The console's door: how passwords are kept and chosen, how often they may be tried, whose session it is then."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from dispatcher.accept.committer import Busy
from dispatcher.cli import main
from dispatcher.console import gate
from dispatcher.console.gate import Gate, keys_of
from dispatcher.ground import account as accounts
from dispatcher.ground.account import Account, Role, Weakness, known_browser, marked_browser, proves, sealed, weakness
from dispatcher.ground.errors import Refused
from dispatcher.ground.secret import Secret
from dispatcher.store.accounts import account_named, all_accounts, begin_session, change_account
from dispatcher.store.engine import Database
from dispatcher.store.schema import metadata
from tests.canaries import canary
from tests.consoled import COOKIE, OPERATORS, PASSWORD, Console, Visitor, consoled, token_in
from tests.ground import NOW
from tests.stores import STORES
from tests.workshop import configuration

pytestmark = pytest.mark.anyio
OTHER = "another sentence of my own"


@pytest.fixture
def cheaply(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is made of a password meanwhile costs a hundredth."""
    monkeypatch.setattr(accounts, "_N", 2**8)
    accounts._nobodys.cache_clear()
    yield
    accounts._nobodys.cache_clear()


@pytest.fixture
async def at(cheaply: None, database: Database, tmp_path: Path) -> AsyncIterator[Console]:
    async with consoled(database, tmp_path) as at:
        yield at


class Ticks:
    """A clock that can't jump, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


# What is kept of a password, and which will do.


def test_a_password_is_kept_as_what_scrypt_makes_of_it_and_no_two_alike() -> None:
    one, two = sealed(Secret(PASSWORD)), sealed(Secret(PASSWORD))
    assert one != two
    name, n, r, p, salt, made = one.split("$")
    # OWASP's figures for scrypt: N = 2^15, r = 8, p = 3.
    assert (name, n, r, p, len(salt), len(made)) == ("scrypt", "32768", "8", "3", 24, 44)
    kept = Account("li.wei", Role.ADMIN, None, one, NOW, NOW)
    assert proves(Secret(PASSWORD), kept)
    assert not proves(Secret(OTHER), kept)
    assert not proves(Secret(PASSWORD), kept._replace(disabled_at=NOW))
    assert one not in repr(kept)


def test_for_nobody_it_takes_the_same_work_as_for_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[tuple[int, int, int]] = []
    scrypt = accounts._scrypt

    def counted(password: Secret, salt: bytes, n: int, r: int, p: int) -> bytes:
        costs.append((n, r, p))
        return scrypt(password, salt, 2, 8, 1)

    monkeypatch.setattr(accounts, "_scrypt", counted)
    known = Account("li.wei", Role.ADMIN, None, sealed(Secret(PASSWORD)), NOW, NOW)
    assert not proves(Secret(PASSWORD), None)
    costs.clear()
    for one in (known, None, known._replace(disabled_at=NOW)):
        proves(Secret(PASSWORD), one)
    assert len(costs) == 3
    assert len(set(costs)) == 1


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", Weakness.SHORT),
        ("eleven char", Weakness.SHORT),
        ("密码密码密码密码密码", Weakness.SHORT),
        ("x" * 257, Weakness.LONG),
        ("my li.wei password", Weakness.NAMED),
        ("LI.WEI is my name", Weakness.NAMED),
        ("aaaaaaaaaaaa", Weakness.COMMON),
        ("121212121212", Weakness.COMMON),
        ("123456789012", Weakness.COMMON),
        ("1234567890123456", Weakness.COMMON),
        ("abcdefghijklmnop", Weakness.COMMON),
        ("qwertyuiopqwerty", Weakness.COMMON),
        ("1qaz2wsx3edc", Weakness.COMMON),
        ("Password1234", Weakness.COMMON),
        ("P@ssw0rd2026!", Weakness.COMMON),
        ("password-password", Weakness.COMMON),
        ("Administrator1", Weakness.COMMON),
        ("dispatcher2026", Weakness.COMMON),
        ("welcome123456", Weakness.COMMON),
        ("iloveyou!!!!!", Weakness.COMMON),
        ("correct horse battery staple", None),
        ("a whole sentence of my own", None),
        ("我最喜欢的一首歌是茉莉花", None),
        ("7f3kq9zr2m1x", None),
        (" leading blank kept", None),
    ],
)
def test_a_password_is_long_and_not_among_the_first_that_are_guessed(password: str, why: Weakness | None) -> None:
    assert weakness(Secret(password), "li.wei") == why


# How often one may try.


def tried(gate: Gate, times: int, *given: Any) -> list[float]:
    """What each further one has to wait."""
    waits = []
    for _ in range(times):
        gate.tried(keys_of(*given))
        waits.append(gate.wait(keys_of(*given)))
    return waits


def test_after_a_few_wrong_tries_each_further_one_waits_longer() -> None:
    ticks = Ticks()
    gate = Gate(ticks)
    assert tried(gate, 5, "li.wei", "192.0.2.1", None) == [0] * 5
    waits = []
    for _ in range(12):
        waits += tried(gate, 1, "li.wei", "192.0.2.1", None)
        ticks.seconds += waits[-1]
        assert gate.wait(keys_of("li.wei", "192.0.2.1", None)) == 0
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == 900
    # It is forgotten in the end.
    ticks.seconds += 3_601
    assert tried(gate, 1, "li.wei", "192.0.2.1", None) == [0]


def test_whoever_tries_for_somebody_elses_account_does_not_lock_that_one_out() -> None:
    ticks = Ticks()
    gate = Gate(ticks)
    for _ in range(500):
        gate.tried(keys_of("li.wei", "192.0.2.1", None))
    # From elsewhere a minute at the most, and from a browser that is known not a moment.
    assert gate.wait(keys_of("li.wei", "192.0.2.1", None)) == 900
    assert 0 < gate.wait(keys_of("li.wei", "198.51.100.7", None)) <= 60
    assert gate.wait(keys_of("li.wei", "192.0.2.1", "its mark")) == 0
    # The address waits whoever it tries for, the others do not.
    assert gate.wait(keys_of("wang.fang", "192.0.2.1", None)) == 900
    assert gate.wait(keys_of("wang.fang", "198.51.100.7", None)) == 0


def test_a_right_password_does_not_wash_an_address_clean() -> None:
    gate = Gate(Ticks())
    for number in range(30):
        gate.tried(keys_of(f"name-{number}", "192.0.2.1", None))
    own = keys_of("mallory", "192.0.2.1", None)
    waited = gate.wait(own)
    gate.tried(own)
    gate.passed(own)
    assert gate.wait(keys_of("li.wei", "192.0.2.1", None)) == waited > 0


def test_a_network_of_ipv6_is_one_address() -> None:
    gate = Gate(Ticks())
    for number in range(40):
        gate.tried(keys_of(f"name-{number}", f"2001:db8:0:1::{number:x}", None))
    assert gate.wait(keys_of("li.wei", "2001:db8:0:1:ffff::1", None)) > 0
    assert gate.wait(keys_of("li.wei", "2001:db8:0:2::1", None)) == 0


def test_what_is_remembered_of_tries_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST_KNOWN", 30)
    at_gate = Gate(Ticks())
    for number in range(1_000):
        at_gate.tried(keys_of("x" * 255 + str(number), f"192.0.2.{number}", None))
    assert len(at_gate._known) == 30


async def test_passwords_are_tried_two_at_once_and_the_loop_goes_on_meanwhile() -> None:
    at_gate, running, most, go_on = Gate(), 0, 0, threading.Event()
    lock = threading.Lock()

    def slow() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert go_on.wait(60)
        with lock:
            running -= 1

    works = [asyncio.create_task(at_gate.work(slow)) for _ in range(gate.MOST_WAITING)]
    while running < gate.AT_ONCE:  # noqa: ASYNC110 - what is waited for happens on other threads
        await asyncio.sleep(0.001)
    with pytest.raises(Busy):
        await at_gate.work(slow)
    go_on.set()
    await asyncio.gather(*works)
    assert most == gate.AT_ONCE


async def test_scrypt_leaves_the_interpreter_to_others() -> None:
    """The worker runs on the same loop: it must go round while passwords are tried."""
    at_gate, most = Gate(), 0
    # A busy machine may have no processor for the loop meanwhile; not every time.
    for _ in range(20):
        rounds = 0
        work = asyncio.create_task(at_gate.work(sealed, Secret(PASSWORD)))
        while not work.done():
            rounds += 1
            await asyncio.sleep(0.001)
        most = max(most, rounds)
        if most > 5:
            break
    assert most > 5


# The door itself.


async def test_a_login_is_by_name_and_password_and_tells_neither_apart(at: Console) -> None:
    at.account(name="li.wei")
    at.account(name="gone")
    change_account(at.database, "gone", "tests", NOW, disabled=True)
    pages = set()
    for name, password in (("li.wei", OTHER), ("nobody", PASSWORD), ("gone", PASSWORD), ("", ""), ("li.wei", "")):
        answer = await Visitor(at).log_in(name, password)
        assert answer.status_code == 401
        pages.add(re.sub(r'(form_token" value=")\w+', r"\1", answer.text))
    assert len(pages) == 1, "what is shown tells which of the two was wrong, or that there is such an account"
    visitor = Visitor(at)
    assert (await visitor.log_in(" li.wei ")).status_code == 303
    assert (await visitor.get("/console")).status_code == 200
    assert all_accounts(at.database)[1].last_login_at == NOW


async def test_where_there_is_no_account_yet_the_door_says_how_the_first_is_made(at: Console) -> None:
    visitor = Visitor(at)
    assert "dispatcher accounts create" in (await visitor.get("/console/login")).text
    at.account(name="li.wei")
    at.desk.forget()
    assert "dispatcher accounts create" not in (await visitor.get("/console/login")).text


async def test_a_login_needs_the_form_of_this_very_door(at: Console) -> None:
    """Another site could else log somebody in as somebody else, and read what he then does."""
    at.account(name="li.wei")
    mallory, victim = Visitor(at), Visitor(at)
    hers = token_in((await mallory.get("/console/login")).text)
    his = token_in((await victim.get("/console/login")).text)
    assert hers != his
    form: dict[str, Any] = {"name": "li.wei", "password": PASSWORD}
    for token in (hers, "", accounts.form_token("")):
        assert (await victim.post("/console/login", token, **form)).status_code == 403
    assert (await victim.post("/console/login", his, {"sec-fetch-site": "cross-site"}, **form)).status_code == 403
    assert (await victim.post("/console/login", his, {"origin": "https://x.example"}, **form)).status_code == 403
    assert (await victim.post("/console/login", his, {"origin": "http://dispatcher.test"}, **form)).status_code == 303


async def test_a_session_that_somebody_else_chose_is_none(at: Console) -> None:
    at.account(name="li.wei")
    chosen = "A" * 43
    visitor = Visitor(at)
    visitor.client.cookies.set(COOKIE, chosen, domain="dispatcher.test", path="/console")
    answer = await visitor.log_in("li.wei")
    fresh = re.search(rf"{COOKIE}=([\w-]+)", answer.headers["set-cookie"])
    assert fresh is not None
    assert fresh[1] != chosen
    assert (await Visitor(at, chosen).get("/console")).status_code == 303
    # Nor does an own one of before go on: each login has a token that was never shown.
    again = Visitor(at, fresh[1])
    shown = await again.get("/console/password")
    done = await again.client.post(
        "/console/login", data={"form_token": token_in(shown.text), "name": "li.wei", "password": PASSWORD}
    )
    assert done.status_code == 303
    assert (await Visitor(at, fresh[1]).get("/console")).status_code == 303


async def test_the_cookies_are_for_this_host_and_its_pages_alone(at: Console) -> None:
    at.account(name="li.wei")
    plain = (await Visitor(at).log_in("li.wei")).headers.get_list("set-cookie")
    at.url = "https://dispatcher.test"
    encrypted = (await Visitor(at).log_in("li.wei")).headers.get_list("set-cookie")
    assert len(plain) == len(encrypted) == 3
    for cookie in (*plain, *encrypted):
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Domain" not in cookie
    # By this beginning of the name browsers hold that nobody but this host set it, and over TLS.
    assert all(cookie.startswith("__Host-") and "Secure" in cookie and "Path=/;" in cookie for cookie in encrypted)
    assert not any("Secure" in cookie for cookie in plain)
    assert "Max-Age" not in next(cookie for cookie in plain if cookie.startswith(f"{COOKIE}="))


async def test_after_too_many_tries_even_the_right_password_waits(at: Console) -> None:
    at.account(name="li.wei")
    for _ in range(6):
        assert (await Visitor(at).log_in("li.wei", OTHER)).status_code == 401
    answer = await Visitor(at).log_in("li.wei")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert "Too many tries" in answer.text
    # Another name from there is free still, known or not.
    assert (await Visitor(at).log_in("nobody", OTHER)).status_code == 401


async def test_from_a_browser_that_is_known_one_comes_in_while_others_try(at: Console) -> None:
    at.account(name="li.wei")
    at.account(name="wang.fang")
    own = Visitor(at)
    await own.log_in("li.wei")
    await own.post("/console/logout")
    for _ in range(6):
        await Visitor(at).log_in("li.wei", OTHER)
    assert (await Visitor(at).log_in("li.wei")).status_code == 429
    assert (await own.log_in("li.wei")).status_code == 303
    # It is known for this account, and for the password that it had.
    known = all_accounts(at.database)[0]
    mark = marked_browser(known)
    assert known_browser(known, mark) == mark.partition(".")[0]
    assert known_browser(all_accounts(at.database)[1], mark) is None
    assert known_browser(known._replace(password="scrypt$other"), mark) is None
    for shown in ("", ".", mark[:-1], f"x{mark}", "é.é"):
        assert known_browser(known, shown) is None


@pytest.mark.each_store
def test_a_password_that_was_changed_while_it_was_proved_opens_nothing(database: Database, tmp_path: Path) -> None:
    at = Console(database, tmp_path)
    proved = at.account(name="li.wei")
    change_account(database, "li.wei", "tests", NOW + 1, password="scrypt$2$8$1$$")
    with pytest.raises(Refused, match="log in again"):
        begin_session(database, b"x" * 32, proved, NOW + 2)


async def test_everybody_changes_his_own_password_and_is_out_elsewhere(at: Console) -> None:
    session = at.session(Role.OPERATOR, "acme")
    here, elsewhere = Visitor(at, session), Visitor(at, at.session(Role.OPERATOR, "acme"))
    form: dict[str, Any] = {"password": PASSWORD, "fresh": OTHER, "again": OTHER}
    for wrong, told in (
        ({"password": OTHER}, "This is not the password"),
        ({"again": PASSWORD}, "not the same"),
        ({"fresh": "short", "again": "short"}, "Too short"),
    ):
        answer = await here.post("/console/password", **{**form, **wrong})
        assert (answer.status_code, told in answer.text) == (422, True)
        assert 'aria-invalid="true"' in answer.text
    done = await here.post("/console/password", **form)
    assert done.status_code == 303
    fresh = re.search(rf"{COOKIE}=([\w-]+)", done.headers["set-cookie"])
    assert fresh is not None
    assert (await Visitor(at, fresh[1]).get("/console")).status_code == 200
    assert (await elsewhere.get("/console")).status_code == 303
    assert (await Visitor(at, session).get("/console")).status_code == 303
    changed = account_named(at.database, "operator-acme")
    assert proves(Secret(OTHER), changed)
    assert (await Visitor(at).log_in("operator-acme")).status_code == 401


async def test_with_an_open_session_a_password_is_not_guessed_without_end(at: Console) -> None:
    visitor = Visitor(at, at.session())
    told = ""
    for _ in range(12):
        told = (await visitor.post("/console/password", password="x", fresh=OTHER, again=OTHER)).text
    assert "Too many tries" in told


async def test_an_admin_makes_accounts_and_whatever_is_wrong_is_told_where_it_stands(at: Console) -> None:
    visitor = Visitor(at, at.session(Role.ADMIN, name="li.wei"))
    form: dict[str, Any] = {"name": "acme-1", "role": "operator", "operator": "acme", "password": OTHER}
    for wrong, told in (
        ({"name": "Acme 1"}, "small letters"),
        ({"name": "li.wei"}, "There is, or was"),
        ({"role": "owner"}, "Choose a role"),
        ({"operator": "nobody"}, "Choose the operator"),
        ({"operator": ""}, "Choose the operator"),
        ({"password": "short"}, "Too short"),
        ({"password": "acme-1 acme-1 x"}, "name is in it"),
    ):
        answer = await visitor.post("/console/accounts/new", **{**form, **wrong})
        assert (answer.status_code, told in answer.text) == (422, True), wrong
    assert len(all_accounts(at.database)) == 1
    assert (await visitor.post("/console/accounts/new", **form)).status_code == 303
    made = account_named(at.database, "acme-1")
    assert made is not None
    assert (made.role, made.operator) == (Role.OPERATOR, "acme")
    # The operator's name is nothing for a role that sees all of them.
    await visitor.post("/console/accounts/new", **{**form, "name": "boss", "role": "admin"})
    assert [(one.name, one.operator) for one in all_accounts(at.database)] == [
        ("acme-1", "acme"),
        ("boss", None),
        ("li.wei", None),
    ]


async def test_nobody_disables_himself_nor_resets_what_he_did_not_prove(at: Console) -> None:
    visitor = Visitor(at, at.session(Role.ADMIN, name="li.wei"))
    for did in ("disable", "enable", "password"):
        answer = await visitor.post(f"/console/accounts/of/li.wei/{did}", password=OTHER)
        assert (answer.status_code, "This is your own account" in answer.text) == (409, True)
    assert (await visitor.get("/console")).status_code == 200
    for did in ("disable", "password"):
        assert (await visitor.post(f"/console/accounts/of/nobody/{did}", password=OTHER)).status_code == 409


async def test_no_password_and_no_token_is_anywhere_but_where_it_is_given(at: Console) -> None:
    password, fresh = canary("console password"), canary("console password again")
    visitor = Visitor(at, at.session(Role.ADMIN, name="li.wei"))
    pages = [await visitor.post("/console/accounts/new", name="new", role="support", password=password)]
    tokens = [visitor.session or ""]
    mine = Visitor(at)
    # Somebody wrote the password where the name goes.
    for name, given in ((password, password), ("new", fresh), ("new", password)):
        pages.append(await mine.log_in(name, given))
    tokens += [str(cookie.value) for cookie in mine.client.cookies.jar]
    pages += [await mine.post("/console/password", password=one, fresh=fresh, again=fresh) for one in (password, fresh)]
    pages += [await mine.get(path) for path in ("/console", "/console/password", "/console/login")]
    with at.database.reading() as connection:
        stored = repr([[tuple(row) for row in connection.execute(select(one))] for one in metadata.sorted_tables])
    logged = repr(at.lines)
    assert at.told("login"), "it was logged"
    assert at.told("login_refused"), "it was logged"
    for secret in (password, fresh, *tokens):
        assert len(secret) > 20
        assert secret not in logged
        assert secret not in stored
        for page in pages:
            assert secret not in page.text, page.request.url
    shown = repr([at.desk, *all_accounts(at.database), at.desk.gate])
    assert not any(secret in shown for secret in (password, fresh, *tokens))
    assert not any(one.password in shown + logged for one in all_accounts(at.database))


# The commands.


def call(folder: Path, *words: str, given: str | None = None) -> Any:
    config = folder / "config.toml"
    if not config.exists():
        configuration(folder, *OPERATORS, top=STORES.settings())
    first, *rest = words
    return CliRunner().invoke(main, ["accounts", first, "-c", str(config), *rest], input=given)


@pytest.mark.each_store
def test_an_account_is_made_listed_disabled_and_given_another_password(cheaply: None, tmp_path: Path) -> None:
    made = call(tmp_path, "create", "li.wei", "--role", "admin", "--password-stdin", "--json", given=f"{PASSWORD}\n")
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert {name: told[name] for name in ("name", "role", "operator", "disabled_at", "last_login_at")} == {
        "name": "li.wei",
        "role": "admin",
        "operator": None,
        "disabled_at": None,
        "last_login_at": None,
    }
    database = STORES.open(tmp_path)
    assert proves(Secret(PASSWORD), account_named(database, "li.wei"))
    again = call(tmp_path, "passwd", "li.wei", "--password-stdin", given=OTHER)
    assert again.exit_code == 0, again.output
    assert proves(Secret(OTHER), account_named(database, "li.wei"))
    for did, disabled in (("disable", True), ("disable", True), ("enable", False)):
        done = call(tmp_path, did, "li.wei", "--json")
        assert (json.loads(done.stdout)["disabled_at"] is not None) is disabled
    bound = call(tmp_path, "create", "acme-1", "--role=operator", "--operator=acme", "--password-stdin", given=PASSWORD)
    assert bound.exit_code == 0, bound.output
    listed = call(tmp_path, "list", "--json")
    assert [json.loads(line)["name"] for line in listed.stdout.splitlines()] == ["acme-1", "li.wei"]
    assert "账号" in call(tmp_path, "list", "--lang", "zh").stdout
    kept = [one.password for one in all_accounts(database)]
    database.close()
    for done in (made, again, bound, listed, call(tmp_path, "list")):
        assert not any(secret in done.output for secret in (PASSWORD, OTHER, "scrypt", *kept))
    audited = CliRunner().invoke(main, ["audit", "-c", str(tmp_path / "config.toml"), "--json"])
    assert audited.exit_code == 0, audited.output


@pytest.mark.parametrize(
    ("words", "given", "told", "status"),
    [
        (["create", "li.wei", "--role", "admin"], PASSWORD, "no terminal to ask", 1),
        (["create", "li.wei", "--role", "admin", "--password-stdin"], "short", "too short", 1),
        (["create", "li.wei", "--role", "admin", "--password-stdin"], "", "too short", 1),
        (["create", "li.wei", "--role", "admin", "--password-stdin"], "password1234", "first that are guessed", 1),
        (["create", "Li Wei", "--role", "admin", "--password-stdin"], PASSWORD, "small letters", 1),
        (["create", "li.wei", "--role", "owner", "--password-stdin"], PASSWORD, "'owner' is not one of", 2),
        (["create", "li.wei", "--role", "admin", PASSWORD], "", "unexpected extra argument", 2),
        (["create", "li.wei", "--role", "operator", "--password-stdin"], PASSWORD, "--operator goes with", 2),
        (["create", "li.wei", "--role=admin", "--operator=acme", "--password-stdin"], PASSWORD, "goes with", 2),
        (["create", "x", "--role=operator", "--operator=nobody", "--password-stdin"], PASSWORD, 'write "acme"', 1),
        (["passwd", "nobody", "--password-stdin"], PASSWORD, "there is no account nobody", 1),
        (["disable", "nobody"], "", "there is no account nobody", 1),
    ],
)
def test_what_cannot_be_is_refused_and_no_account_is_made(
    database: Database, tmp_path: Path, words: list[str], given: str, told: str, status: int
) -> None:
    done = call(tmp_path, *words, given=given)
    assert (done.exit_code, told in done.stderr) == (status, True), done.output
    assert not all_accounts(database)
