"""arq on Redis, aiohttp on uvloop."""

import asyncio
import logging

import aiohttp
import uvloop
from arq import Retry, create_pool
from arq.connections import RedisSettings
from job import HEADERS, SLOTS, STORE, TIMEOUT_SECONDS, URL, body, jobs

# The worker's own command makes the loop.
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


async def startup(ctx):
    # Otherwise it writes two lines for each job.
    logging.getLogger("arq").setLevel(logging.WARNING)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    ctx["session"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=SLOTS), timeout=timeout)


async def shutdown(ctx):
    await ctx["session"].close()


async def post(ctx, path, uid, event):
    async with ctx["session"].post(URL + path, data=body(event, uid), headers=HEADERS) as answer:
        await answer.read()
        if answer.status != 200:
            raise Retry(defer=60)


class WorkerSettings:
    functions = (post,)
    on_startup = startup
    on_shutdown = shutdown
    redis_settings = RedisSettings.from_dsn(STORE)
    max_jobs = SLOTS
    max_tries = 4
    keep_result = 0
    poll_delay = 0.01


async def queue():
    pool = await create_pool(WorkerSettings.redis_settings)
    for one in jobs():
        await pool.enqueue_job("post", **one)
    await pool.aclose()


def fill():
    asyncio.run(queue())
