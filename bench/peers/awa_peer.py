"""awa on PostgreSQL, aiohttp on uvloop."""

import asyncio
import signal
from dataclasses import dataclass
from typing import Any

import aiohttp
import awa
import uvloop
from job import HEADERS, SLOTS, STORE, TIMEOUT_SECONDS, URL, body, jobs

QUEUE = "callbacks"


@dataclass
class Post:
    path: str
    uid: str
    event: dict[str, Any]


async def queue():
    client = awa.AsyncClient(STORE)
    await client.migrate()
    # The storage that a new installation ends up with.
    await client.install_queue_storage()
    waiting = [Post(**one) for one in jobs()]
    for start in range(0, len(waiting), 500):
        await client.enqueue_many_copy(waiting[start : start + 500], queue=QUEUE, max_attempts=4)
    await client.close()


async def deliver():
    client = awa.AsyncClient(STORE)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=SLOTS), timeout=timeout) as session:

        @client.task(Post, queue=QUEUE)
        async def post(job):
            order = job.args
            async with session.post(URL + order.path, data=body(order.event, order.uid), headers=HEADERS) as answer:
                await answer.read()
                answer.raise_for_status()

        await client.start([(QUEUE, SLOTS)])
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await ended.wait()
        await client.shutdown()


def fill():
    uvloop.run(queue())


def work():
    uvloop.run(deliver())
