"""Celery on Redis, threads, requests: late acknowledgement, so that a lost worker's jobs are not lost at once."""

from celery import Celery, Task
from job import HEADERS, STORE, TIMEOUT_SECONDS, URL, body, jobs
from posting import session

app = Celery("callbacks", broker=STORE)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
)


@app.task(bind=True, max_retries=3, name="post")
def post(self: Task, path, uid, event):
    answer = session().post(URL + path, data=body(event, uid), headers=HEADERS, timeout=TIMEOUT_SECONDS)
    if answer.status_code != 200:
        raise self.retry(countdown=60)


def fill():
    with app.producer_pool.acquire(block=True) as producer:
        for one in jobs():
            post.apply_async(kwargs=one, producer=producer)
