"""procrastinate on PostgreSQL, aiohttp on uvloop."""

import aiohttp
import uvloop
from job import HEADERS, SLOTS, STORE, TIMEOUT_SECONDS, URL, body, jobs
from procrastinate import App, PsycopgConnector, RetryStrategy

app = App(connector=PsycopgConnector(conninfo=STORE, min_size=2, max_size=20))
_own = {}


def session() -> aiohttp.ClientSession:
    if "session" not in _own:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        _own["session"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=SLOTS), timeout=timeout)
    return _own["session"]


@app.task(name="post", retry=RetryStrategy(max_attempts=4, wait=60))
async def post(path, uid, event):
    async with session().post(URL + path, data=body(event, uid), headers=HEADERS) as answer:
        await answer.read()
        answer.raise_for_status()


async def queue():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await post.batch_defer_async(*jobs())


async def deliver():
    async with app.open_async():
        await app.run_worker_async(concurrency=SLOTS)


def fill():
    uvloop.run(queue())


def work():
    uvloop.run(deliver())
