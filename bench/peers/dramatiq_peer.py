"""dramatiq on Redis, one process with threads, requests."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from job import HEADERS, STORE, TIMEOUT_SECONDS, URL, body, jobs
from posting import session

dramatiq.set_broker(RedisBroker(url=STORE))


@dramatiq.actor(max_retries=3, min_backoff=60_000)
def post(path, uid, event):
    answer = session().post(URL + path, data=body(event, uid), headers=HEADERS, timeout=TIMEOUT_SECONDS)
    answer.raise_for_status()


def fill():
    for one in jobs():
        post.send(**one)
