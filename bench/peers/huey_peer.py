"""huey on SQLite with fsync, threads, requests."""

from huey import SqliteHuey
from job import HEADERS, STORE, TIMEOUT_SECONDS, URL, body, jobs
from posting import session

huey = SqliteHuey("callbacks", filename=STORE, fsync=True, results=False)


@huey.task(retries=3, retry_delay=60)
def post(path, uid, event):
    answer = session().post(URL + path, data=body(event, uid), headers=HEADERS, timeout=TIMEOUT_SECONDS)
    answer.raise_for_status()


def fill():
    for one in jobs():
        post(**one)
