"""For asyncio: collections when the loop has nothing to do.

    task = winnow.aio.when_idle(interval=0.1, budget_ms=5)     # inside a running loop; task.cancel() ends it
"""

import asyncio

import winnow


async def _watch(interval, budget_ms, quiet):
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(interval)
        # The loop was quiet if it woke us on time and lets us go straight round again.
        late = loop.time() - before - interval
        turn = loop.time()
        await asyncio.sleep(0)
        if late < quiet and loop.time() - turn < quiet:
            winnow.idle(budget_ms=budget_ms)


def when_idle(interval=0.1, budget_ms=5.0, quiet=0.001):
    """A task that calls winnow.idle(budget_ms) every `interval` seconds, if the loop answers within `quiet` seconds."""
    return asyncio.get_running_loop().create_task(_watch(interval, budget_ms, quiet), name="winnow")
