"""What people are told: one summary for each window, by our own deliveries, in the words of each chat tool."""

import base64
import hmac
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from click.testing import CliRunner

from dispatcher.accept import read_event
from dispatcher.cli import main
from dispatcher.ground.clock import DAY, HOUR, MINUTE
from dispatcher.ground.errors import EventError
from dispatcher.ground.lang import words
from dispatcher.ground.operator import Chat, Language, Notification, Tell
from dispatcher.ground.policy import Outcome, Reason, Status, Verb, Verdict
from dispatcher.ground.secret import Secret
from dispatcher.protocols import summary
from dispatcher.store import ledger, operators
from dispatcher.store.acceptance import Fate
from dispatcher.store.corridor import Settlement
from dispatcher.store.engine import open_database
from dispatcher.summaries import SETTLED, Failing
from tests.ground import NOW, config_with, faults_of, lock
from tests.workshop import Bench, accept, configuration, rows, settle, take

OPS = "notify:ops"
HOOK = "https://hooks.example/services/T0000/the-token-of-the-hook"
# NOW is the beginning of a window.
EVERY = 5 * MINUTE
TABLE = f'[notifications.ops]\npreset = "slack"\nurl = "{HOOK}"\n'


class Told:
    """A daemon with acme, bolt and a webhook; windows are ended by hand."""

    def __init__(self, folder: Path, more: str = "", **lines: str) -> None:
        names = ("acme", "bolt")
        self.path = configuration(folder, *names, **{"retry": '{ delays = ["1m"] }', **lines})
        self.path.write_text(f"{self.path.read_text()}\n{TABLE}{more}", "utf-8")
        self.bench = Bench(self.path)
        self.bench.router.post("https://bolt.example/Demo/notice").respond(200)
        self.hook: respx.Route = self.bench.router.post(HOOK).respond(200, text="ok")

    async def __aenter__(self) -> "Told":
        await self.bench.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.bench.cut_off()

    def kill(self, *keys: int, operator: str = "acme") -> None:
        """These die now."""
        now, database = self.bench.clock.now(), self.bench.database
        accept(database, *keys, operator=operator, now=now)
        outcome = Outcome(now, now, 0, reason=Reason.CONNECT_REFUSED)
        buried = Verdict(Verb.BURY, None, Reason.CONNECT_REFUSED, anchor_at=now)
        settle(database, *(Settlement(one, outcome, buried) for one in take(database, now, 100, operator)), now=now)

    async def window(self, by: int = EVERY) -> None:
        """So much later, with all that is to be done by then."""
        clock = self.bench.clock
        clock.at = (clock.at + by) // EVERY * EVERY + SETTLED
        summaries = self.bench.daemon.summaries
        summaries.round()
        assert summaries._task is not None
        await summaries._task
        await self.bench.look()

    def made(self) -> list[dict[str, Any]]:
        """The events of all summaries, oldest first."""
        return [json.loads(one.body) for one in rows(self.bench.database, operator=OPS)]

    def texts(self) -> list[str]:
        """What arrived."""
        return [json.loads(call.request.content)["text"] for call in self.hook.calls]


# When one is made.


@pytest.mark.anyio
@pytest.mark.each_store
async def test_what_died_in_a_window_is_told_once_in_one_message(tmp_path: Path) -> None:
    async with Told(tmp_path) as at:
        at.kill(1, 2, 3)
        at.kill(4, operator="bolt")
        await at.window()
        await at.window()
        await at.window()
        (text,) = at.texts()
        assert text.splitlines()[0] == "dispatcher: 4 dead letters"
        (body,) = at.made()
        assert [(one["operator"], one["died"], one["dead"], one["reasons"]) for one in body["operators"]] == [
            ("acme", 3, 3, {"connect_refused": 3}),
            ("bolt", 1, 1, {"connect_refused": 1}),
        ]
        assert [one.status for one in rows(at.bench.database, operator=OPS)] == ["delivered"]
        at.kill(5)
        await at.window()
        assert [[one["died"] for one in body["operators"]] for body in at.made()] == [[3, 1], [1]]
        assert at.made()[1]["since"] == at.made()[0]["until"]
        assert at.made()[1]["operators"][0]["dead"] == 4


@pytest.mark.anyio
@pytest.mark.each_store
async def test_of_many_workers_that_see_the_same_window_one_makes_its_summary(tmp_path: Path) -> None:
    async with Told(tmp_path) as at:
        at.kill(1)
        at.bench.clock.at = NOW + EVERY + SETTLED
        (one,) = at.bench.daemon.enrolment.roster.notifications.values()
        window, make = at.bench.clock.at // EVERY, at.bench.daemon.summaries._make
        # The other has looked before ours was there: it has read what there is to tell, and writes behind us.
        facts = at.bench.daemon.summaries._told(OPS, window * EVERY)
        fates = [make(one, window, {})]
        at.bench.daemon.summaries._told = lambda *_: facts  # type: ignore[method-assign]  # as if it were not there yet
        fates += [make(one, window, {}), make(one, window, {"bolt": Failing(30, NOW, NOW)})]
        assert fates == [Fate.ACCEPTED, Fate.DUPLICATE, Fate.CONFLICT]
        assert len(at.made()) == 1


@pytest.mark.anyio
async def test_a_quiet_window_makes_nothing(tmp_path: Path) -> None:
    async with Told(tmp_path) as at:
        await at.bench.send(1, operator="bolt")
        for _ in range(3):
            await at.window()
        assert at.made() == []
        assert at.hook.call_count == 0


@pytest.mark.anyio
async def test_while_one_waits_no_other_is_made_and_the_next_tells_the_rest(tmp_path: Path) -> None:
    async with Told(tmp_path, 'retry = { delays = ["1h"] }\n') as at:
        at.hook.respond(500)
        at.kill(1)
        await at.window()
        at.kill(2, 3)
        await at.window()
        await at.window()
        assert [body["operators"][0]["died"] for body in at.made()] == [1]
        at.hook.respond(200, text="ok")
        await at.window(HOUR)
        await at.window()
        assert [body["operators"][0]["died"] for body in at.made()] == [1, 2]
        assert [one.status for one in rows(at.bench.database, operator=OPS)] == ["delivered"] * 2


@pytest.mark.anyio
async def test_what_a_dead_summary_would_have_told_the_next_one_tells_and_never_its_own_death(tmp_path: Path) -> None:
    async with Told(tmp_path, "retry = { delays = [] }\n") as at:
        at.hook.respond(500)
        at.kill(1)
        await at.window()
        assert [one.status for one in rows(at.bench.database, operator=OPS)] == ["dead"]
        at.hook.respond(200, text="ok")
        await at.window()
        await at.window()
        told = [[(one["operator"], one["died"]) for one in body["operators"]] for body in at.made()]
        assert told == [[("acme", 1)], [("acme", 1)]]
        assert at.made()[0]["since"] == at.made()[1]["since"]
        assert [one.status for one in rows(at.bench.database, operator=OPS)] == ["dead", "delivered"]


@pytest.mark.anyio
async def test_what_was_told_is_not_told_anew_when_retention_has_taken_the_summary(tmp_path: Path) -> None:
    async with Told(tmp_path) as at:
        at.bench.daemon.summaries.keep = DAY
        at.kill(1)
        await at.window()
        with at.bench.database.writing() as connection:
            for table, column in (("attempts", "delivery_id"), ("deliveries", "id")):
                kept = "SELECT id FROM deliveries WHERE type = 'summary'"
                connection.exec_driver_sql(f"DELETE FROM {table} WHERE {column} IN ({kept})")
        await at.window(2 * DAY)
        assert at.made() == []
        at.kill(2)
        await at.window()
        assert [body["operators"][0]["died"] for body in at.made()] == [1]


@pytest.mark.anyio
async def test_an_operator_that_fails_throughout_is_told_once_before_anything_is_dead(tmp_path: Path) -> None:
    more = 'failing = { failures = 3, for = "2m" }\n'
    async with Told(tmp_path, more, retry='{ delays = ["1h", "1h"] }') as at:
        at.bench.acme.respond(500)
        await at.bench.send(1, 2)
        await at.window()
        assert at.made() == [], "two failures are not three"
        await at.bench.send(3)
        await at.window()
        (body,) = at.made()
        (told,) = body["operators"]
        assert (told["operator"], told["died"], told["failures"], told["failing_since"]) == ("acme", 0, 3, NOW)
        assert told["oldest"] == NOW
        assert "acme: nothing has succeeded since 2026-01-01T00:00:00Z, 3 attempts failed in a row" in at.texts()[0]
        await at.window()
        assert len(at.made()) == 1, "it is the same trouble"
        at.bench.acme.respond(200)
        await at.bench.send(4)
        at.bench.acme.respond(500)
        await at.bench.send(5, 6, 7)
        await at.window()
        assert len(at.made()) == 2, "it is another one"


@pytest.mark.anyio
async def test_an_operator_that_its_breaker_holds_is_told_at_once_and_not_again_after_a_restart(tmp_path: Path) -> None:
    async with Told(tmp_path, breaker='{ failures = 2, probe = "1h" }') as at:
        at.bench.acme.respond(500)
        await at.bench.send(1, 2)
        await at.window()
        assert "acme: held by its breaker since" in at.texts()[0]
        assert "1 operators failing" in at.texts()[0]
        await at.bench.restart()
        await at.window()
        await at.window(2 * HOUR)
        assert len(at.made()) == 1


@pytest.mark.anyio
async def test_a_notification_tells_of_its_operators_and_of_what_it_is_for(tmp_path: Path) -> None:
    async with Told(tmp_path, 'operators = ["bolt"]\ntell = ["dead"]\n') as at:
        at.kill(1)
        await at.window()
        assert at.made() == []
        at.kill(2, operator="bolt")
        at.bench.acme.respond(500)
        await at.window()
        assert [[one["operator"] for one in body["operators"]] for body in at.made()] == [["bolt"]]


@pytest.mark.anyio
async def test_of_many_operators_the_worst_are_told_and_the_others_counted(tmp_path: Path) -> None:
    names = [f"op{n:02}" for n in range(25)]
    async with Told(tmp_path) as at:
        for name in names:
            at.bench.clock.at = NOW + MINUTE
            with at.bench.database.writing() as connection:
                connection.exec_driver_sql(
                    "INSERT INTO deliveries"
                    " (operator, type, key, uid, body, digest, status, accepted_at, finished_at, reason)"
                    f" VALUES ('{name}', 'notice', '1', 'u', '{{}}', '', 'dead', {NOW}, {NOW + 1}, 'dns')"
                )
        await at.window()
        (body,) = at.made()
        assert (len(body["operators"]), body["others"]) == (20, 5)
        assert "and 5 operators more" in at.texts()[0]


# It is no spin.


@pytest.mark.anyio
@pytest.mark.each_store
async def test_summaries_are_found_by_their_type_or_name_and_never_among_spins(tmp_path: Path) -> None:
    async with Told(tmp_path, "retry = { delays = [] }\n") as at:
        at.hook.respond(500)
        at.kill(1)
        await at.window()
        await at.bench.send(9, operator="bolt")
        database = at.bench.database

        def found(**where: Any) -> list[str]:
            return sorted({one.operator for one in ledger.find(database, ledger.Filter(**where), 50)})

        assert found() == ["acme", "bolt"]
        assert found(status=Status.DEAD) == ["acme"]
        assert found(status=Status.DEAD, since=NOW) == ["acme"]
        assert found(uid="") == []
        assert found(key=rows(database, operator=OPS)[0].key) == []
        for where in ({"type": "summary"}, {"operator": OPS}, {"operator": OPS, "status": Status.DEAD}):
            assert found(**where) == [OPS], where
        every = {one.operator for one in ledger.find(database, ledger.Filter(), None)}
        assert every == {"acme", "bolt"}


@pytest.mark.anyio
async def test_nobody_can_hand_in_a_summary(tmp_path: Path) -> None:
    async with Told(tmp_path) as at:
        roster = at.bench.daemon.enrolment.roster
        assert set(roster.operators) == {"acme", "bolt"}
        assert set(roster.members) == {"acme", "bolt", OPS}
        for raw in ({"operator": OPS, "type": "summary"}, {"operator": "acme", "type": "summary"}):
            with pytest.raises(EventError):
                read_event(dict(raw), roster.operators, lock)


@pytest.mark.anyio
async def test_who_no_longer_declares_a_notification_takes_it_out_of_force(tmp_path: Path) -> None:
    async with Told(tmp_path) as at:
        at.path.write_text(at.path.read_text().partition("[notifications")[0], "utf-8")
        await at.bench.daemon.reload(at.path)
        assert set(at.bench.daemon.enrolment.roster.members) == {"acme", "bolt"}
        at.kill(1)
        await at.window()
        assert at.made() == []
        gone = next(one for one in operators.standings(at.bench.database) if one.name == OPS)
        assert gone.settings is None


# What each tool gets.


@pytest.mark.anyio
async def test_for_programs_there_are_the_facts_signed_by_standard_webhooks(tmp_path: Path) -> None:
    key = base64.b64encode(b"k" * 32).decode()
    async with Told(tmp_path) as at:
        table = at.path.read_text().replace('"slack"', f'"json"\nsecret = "whsec_{key}"')
        at.path.write_text(table, "utf-8")
        await at.bench.daemon.reload(at.path)
        at.hook.respond(204)
        at.kill(1)
        await at.window()
        request: httpx.Request = at.hook.calls[0].request
        signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.content
        made = base64.b64encode(hmac.digest(b"k" * 32, signed, "sha256")).decode()
        assert request.headers["webhook-signature"] == f"v1,{made}"
        told = json.loads(request.content)
        assert (told["type"], told["test"], told["until"]) == ("summary", False, "2026-01-01T00:05:00.000Z")
        assert told["operators"][0]["died"] == 1
        assert rows(at.bench.database, operator=OPS)[0].status == "delivered"


@pytest.mark.parametrize(
    ("preset", "status", "body", "yes"),
    [
        ("feishu", 200, '{"code":0,"msg":"success","data":{}}', True),
        ("feishu", 200, '{"code":19021,"msg":"sign match fail"}', False),
        ("feishu", 200, "{}", False),
        ("dingtalk", 200, '{"errcode":0,"errmsg":"ok"}', True),
        ("dingtalk", 200, '{"errcode":130101,"errmsg":"send too fast"}', False),
        ("wecom", 200, '{"errcode":0,"errmsg":"ok"}', True),
        ("wecom", 200, '{"errcode":93000,"errmsg":"invalid webhook url"}', False),
        ("wecom", 500, '{"errcode":0}', False),
        ("slack", 200, "ok", True),
        ("slack", 404, "no_service", False),
        ("json", 202, "", True),
        ("json", 302, "", False),
    ],
)
@pytest.mark.anyio
async def test_what_is_a_yes_is_each_tools_own(tmp_path: Path, preset: str, status: int, body: str, yes: bool) -> None:
    async with Told(tmp_path) as at:
        at.path.write_text(at.path.read_text().replace('"slack"', f'"{preset}"'), "utf-8")
        await at.bench.daemon.reload(at.path)
        at.hook.respond(status, text=body)
        at.kill(1)
        await at.window()
        (row,) = rows(at.bench.database, operator=OPS)
        assert row.status == ("delivered" if yes else "pending")
        (attempt,) = at.bench.attempts(row.key, OPS)
        if not yes and "errmsg" in body:
            assert attempt["detail"] == json.loads(body)["errmsg"]


# Its table.


def fit(lines: str) -> Notification:
    found = config_with(f"[notifications.ops]\n{lines}").notifications[OPS].notification
    assert found is not None
    return found


def test_the_least_that_a_notification_needs_is_its_url() -> None:
    told = fit(f'url = "{HOOK}"')
    assert (told.preset, told.every, told.language, told.operators) == (Chat.JSON, EVERY, Language.EN, frozenset())
    assert told.target == Secret("/services/T0000/the-token-of-the-hook")
    assert (told.tell, told.failures, told.over) == (frozenset(Tell), 20, EVERY)
    terms = config_with(f'[notifications.ops]\nurl = "{HOOK}"').notifications[OPS].terms["summary"]
    assert terms.url == "https://hooks.example"


@pytest.mark.parametrize(
    ("lines", "where", "fault"),
    [
        ("", "url", "is missing"),
        ('url = "hooks.example/x"', "url", "is not the URL of a webhook"),
        ('url = "https://hooks.example"', "url", "is not the URL of a webhook"),
        ('url = "https://10.0.0.1/x"', "url", "10.0.0.1 is not on the public internet"),
        (f'url = "{HOOK}"\npreset = "teams"', "preset", "teams is not known"),
        (f'url = "{HOOK}"\npreset = "slack"\nsecret = "x"', "secret", "is given, and slack signs nothing"),
        (f'url = "{HOOK}"\nsecret = "x"', "secret", "does not begin with whsec_"),
        (f'url = "{HOOK}"\npreset = "feishu"\nsecret = "a b"', "secret", "has blanks"),
        (f'url = "{HOOK}"\nevery = "1s"', "every", "1s is too short"),
        (f'url = "{HOOK}"\noperators = []', "operators", "a list is not a list of operators"),
        (f'url = "{HOOK}"\ntell = ["all"]', "tell", "a list is not a list of what can be told"),
        (f'url = "{HOOK}"\nlang = "fr"', "lang", "fr is not known"),
        (f'url = "{HOOK}"\nurls = 1', "urls", "is not known"),
        (f'url = "{HOOK}"\nretry = 1', "retry", "is not a table"),
        (f'url = "{HOOK}"\nfailing = {{ failures = 0 }}', "failing.failures", "0 is not a whole number"),
    ],
)
def test_what_is_wrong_with_a_notification_is_told_with_its_key(lines: str, where: str, fault: str) -> None:
    faults = faults_of(f"[notifications.ops]\n{lines}")
    assert list(faults) == [f"notifications.ops.{where}"]
    assert faults[f"notifications.ops.{where}"].fault.startswith(fault)


def test_a_faulty_name_is_told() -> None:
    assert "notifications.a:b" in faults_of(f'[notifications."a:b"]\nurl = "{HOOK}"')


def test_a_retry_of_its_own_may_be_an_interval() -> None:
    config = config_with(f'[notifications.ops]\nurl = "{HOOK}"\nretry = {{ every = "1m", for = "1h" }}')
    assert config.notifications[OPS].terms["summary"].schedule.next_due(3, NOW, NOW) == NOW + MINUTE


# By commands.


def called(path: Path, *line: str) -> tuple[int, str]:
    done = CliRunner(env={"LC_ALL": "C", "COLUMNS": "200"}).invoke(main, [*line, "-c", str(path)])
    assert isinstance(done.exception, SystemExit | None), done.exc_info
    return done.exit_code, done.stdout + done.stderr


def test_a_test_message_that_nobody_takes_says_so_and_waits(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    path.write_text(path.read_text() + TABLE, "utf-8")
    status, told = called(path, "notify", "test", "ops", "--wait", "0")
    assert status == 1
    assert "no worker has taken it" in told
    status, told = called(path, "notify", "list", "--json")
    assert status == 0
    assert (json.loads(told)["notification"], json.loads(told)["status"]) == ("ops", "pending")
    status, told = called(path, "notify", "test", "nobody")
    assert (status, 'there are "ops"' in told) == (1, True)
    status, told = called(path, "operators", "set", "notify:other", "preset=slack")
    assert (status, "write [notifications.other] there" in told) == (1, True)


def test_a_test_message_is_no_summary_and_holds_none_up(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    path.write_text(path.read_text() + TABLE, "utf-8")
    assert called(path, "notify", "test", "ops", "--wait", "0")[0] == 1
    database = open_database(config_with(path.read_text(), tmp_path).database)
    (row,) = rows(database, type="summary")
    database.close()
    assert summary.is_test(row.key)
    text = summary.written(json.loads(row.body), words("zh"), OPS)
    assert text == ["dispatcher：notify:ops 的测试消息，无需处理"]
