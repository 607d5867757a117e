"""dramatiq on Redis, one process with threads, requests."""

import threading

import dramatiq
import requests
from dramatiq.brokers.redis import RedisBroker
from job import HEADERS, STORE, TIMEOUT_SECONDS, URL, body, jobs

dramatiq.set_broker(RedisBroker(url=STORE))
_own = threading.local()


def session() -> requests.Session:
    """One connection for each thread."""
    if not hasattr(_own, "session"):
        _own.session = requests.Session()
        # Without a look for proxies at every request.
        _own.session.trust_env = False
    return _own.session


@dramatiq.actor(max_retries=3, min_backoff=60_000)
def post(path, uid, event):
    answer = session().post(URL + path, data=body(event, uid), headers=HEADERS, timeout=TIMEOUT_SECONDS)
    answer.raise_for_status()


def fill():
    for one in jobs():
        post.send(**one)
