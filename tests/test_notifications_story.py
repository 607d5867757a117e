"""A real daemon, an operator that is not there, and a chat tool that refuses twice before it takes the one message."""

import base64
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dispatcher.ground.clock import SECOND
from tests.stores import open_store
from tests.story import Story, until
from tests.workshop import accept

SECRET = "SEC0123456789abcdef"
TOKEN = "the-access-token-of-the-robot"


class Chat:
    """DingTalk, played: what it got, and what it answers, one after the other, the last for ever."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self.answers = list(answers)
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.lock = threading.Lock()

    def answer(self, path: str, body: bytes) -> tuple[int, str]:
        with self.lock:
            self.got.append((path, json.loads(body)))
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def chatting(chat: Chat) -> Iterator[str]:
    class Desk(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, told = chat.answer(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that its base has
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Desk)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/robot/send?access_token={TOKEN}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def notified(story: Story, url: str, **changes: Any) -> None:
    """The story's daemon tells this webhook."""
    table = {"preset": "dingtalk", "url": url, "secret": SECRET, "every": "3s", "retry": {"delays": ["1s", "1s", "1s"]}}
    story.tables["notifications.ops"] = {**table, **changes}
    story.write()


def die_in_one_window(story: Story) -> None:
    """Three deliveries that nobody takes, handed in as a window of three seconds has just begun."""
    database = open_store(story.database)
    until(lambda: database.clock().now() % (3 * SECOND) < SECOND // 4)
    accept(database, 1, 2, 3, now=database.clock().now())
    database.ring()
    database.close()


def test_one_summary_arrives_after_a_500_and_an_error_code_and_its_attempts_are_recorded(tmp_path: Path) -> None:
    no = '{"errcode":310000,"errmsg":"sign not match https://oapi.example/robot/send?access_token=' + TOKEN + '"}'
    chat = Chat((500, "later"), (200, no), (200, '{"errcode":0,"errmsg":"ok"}'))
    with chatting(chat) as url, Story(tmp_path) as story:
        story.set(retry={"delays": []})
        notified(story, url)
        with story.running() as daemon:
            assert daemon.told("running")[0]["notifications"] == ["ops"]
            die_in_one_window(story)
            until(lambda: len(chat.got) == 3, told=daemon.text)
            until(lambda: story.all_are("delivered", "notify:ops"), told=daemon.text)
            # Two windows more, in which nothing died.
            done = story.call("notify", "list", "--json")
            assert done.json()["status"] == "delivered"
            key = done.json()["last"]
            until(lambda: int(story.query("SELECT strftime('%s', 'now')")[0][0]) // 3 >= int(key) + 4)
            assert [one["type"] for one in daemon.told("attempt")].count("summary") == 3
        assert story.query("SELECT count(*) FROM deliveries WHERE type = 'summary'") == [(1,)]
        shown = story.show(key, "notify:ops")
        told = [(one["n"], one["http_status"], one["code"], one["reason"]) for one in shown["attempts"]]
        assert told == [(1, 500, None, "http_status"), (2, 200, "310000", "body_field"), (3, 200, "0", None)]
        assert "sign not match" in shown["attempts"][1]["response"]
        texts = {body["text"]["content"] for _, body in chat.got}
        assert len(texts) == 1
        assert "acme: 3 died since" in texts.pop()
        story.prove()
        everything = daemon.text() + json.dumps(shown) + story.call("check", "--json").out
        everything += story.call("operators", "show", "notify:ops", "--json").out + "".join(map(str, story.content()))
        assert TOKEN not in everything
        assert SECRET not in everything
        assert b"".join(path.read_bytes() for path in tmp_path.glob("dispatcher.db*")).count(TOKEN.encode()) == 0
    queries = [parse_qs(urlsplit(path).query) for path, _ in chat.got]
    assert len({query["timestamp"][0] for query in queries}) == 3, "each attempt is stamped anew"
    for query in queries:
        stamp = query["timestamp"][0]
        signed = hmac.digest(SECRET.encode(), f"{stamp}\n{SECRET}".encode(), "sha256")
        assert query["sign"] == [base64.b64encode(signed).decode()]
        assert query["access_token"] == [TOKEN]


def test_a_test_message_is_sent_by_the_running_daemon_and_the_command_tells_what_came_of_it(tmp_path: Path) -> None:
    chat = Chat((200, '{"errcode":300001,"errmsg":"token is not exist"}'), (200, '{"errcode":0}'))
    with chatting(chat) as url, Story(tmp_path) as story:
        notified(story, url, lang="zh", retry={"delays": ["100ms"]})
        assert story.call("check", "--json").json()["ok"]
        with story.running():
            done = story.call("notify", "test", "ops")
            assert done.status == 1
            assert "token is not exist" in done.out
            until(lambda: story.all_are("delivered", "notify:ops"))
            again = story.call("notify", "test", "ops", "--json")
            assert (again.status, again.json()["status"]) == (0, "delivered")
        assert [body["text"]["content"] for _, body in chat.got] == ["dispatcher：notify:ops 的测试消息，无需处理"] * 3
        assert story.call("log", "--json").out == ""
        assert len(story.call("log", "--type", "summary", "--json").rows()) == 2


def test_a_webhook_that_can_not_be_reached_or_may_not_be_called_is_told_by_check(tmp_path: Path) -> None:
    with Story(tmp_path) as story:
        notified(story, f"http://127.0.0.1:{story.port()}/robot/send?access_token={TOKEN}")
        done = story.call("check", "--json")
        where = [one["where"] for one in done.json()["warnings"]]
        assert "notifications.ops.url" in where
        assert TOKEN not in done.out
        story.set("egress", allow=[])
        done = story.call("check", "--json")
        faults = [one["where"] for one in done.json()["faults"]]
        assert "notifications.ops.url" in faults
        assert TOKEN not in done.out
