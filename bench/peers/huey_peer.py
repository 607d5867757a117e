"""huey on SQLite with fsync, threads, requests."""

import threading

import requests
from huey import SqliteHuey
from job import HEADERS, STORE, TIMEOUT_SECONDS, URL, body, jobs

huey = SqliteHuey("callbacks", filename=STORE, fsync=True, results=False)
_own = threading.local()


def session() -> requests.Session:
    """One connection for each thread."""
    if not hasattr(_own, "session"):
        _own.session = requests.Session()
        # Without a look for proxies at every request.
        _own.session.trust_env = False
    return _own.session


@huey.task(retries=3, retry_delay=60)
def post(path, uid, event):
    answer = session().post(URL + path, data=body(event, uid), headers=HEADERS, timeout=TIMEOUT_SECONDS)
    answer.raise_for_status()


def fill():
    for one in jobs():
        post(**one)
