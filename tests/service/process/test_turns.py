"""Requests that would begin late in a long iteration of the event loop begin in later ones."""

import asyncio
import math
import threading
from functools import partial
from itertools import pairwise
from time import perf_counter, sleep, thread_time

import pytest

from spikeserve.service.process.turns import LONG_SECONDS, MAX_TURNS, SHORT_SECONDS, TimedSelector, Turns

pytestmark = pytest.mark.anyio


class Iterations:
    """Counts the iterations of the event loop; each takes so many seconds on the selector's clock, from 0 on."""

    def __init__(self, selector: TimedSelector, seconds: float) -> None:
        self.selector, self.seconds = selector, seconds
        self.number = 0
        self.begun: list[int] = []  # the iteration in which each request began
        selector.spent = 0.0
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self.number += 1
        self.selector.spent += self.seconds
        asyncio.get_running_loop().call_soon(self._next)

    async def ask(self, turns: Turns) -> None:
        """Begin a request, in its turn."""
        await turns.begin()
        self.begun.append(self.number)


async def begun(seconds: float, requests: int) -> list[int]:
    """Return how many requests begin in each iteration, of so many that come in one that goes on for long."""
    selector = TimedSelector()
    iterations = Iterations(selector, seconds)
    turns = Turns(selector, MAX_TURNS)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(requests):
            tasks.create_task(iterations.ask(turns))
    return [iterations.begun.count(number) for number in sorted(set(iterations.begun))]


async def test_while_iterations_are_short_twice_as_many_begin_in_each_as_in_the_one_before() -> None:
    assert await begun(SHORT_SECONDS / 2, 17) == [1, 2, 4, 8, 2]


async def test_a_request_that_is_cancelled_while_it_waits_begins_and_holds_up_no_other() -> None:
    selector = TimedSelector()
    iterations = Iterations(selector, 0.0)
    turns = Turns(selector, MAX_TURNS)
    asked = [asyncio.create_task(iterations.ask(turns)) for _ in range(3)]
    await asyncio.sleep(0)
    asked[0].cancel()  # as the server does at its end, which its application tells the client
    await asyncio.wait_for(asyncio.gather(*asked), 60)
    assert len(iterations.begun) == 3


def test_the_selector_of_a_loop_tells_how_long_an_iteration_goes_on() -> None:
    selector = TimedSelector()
    assert not selector.is_long

    async def work() -> tuple[bool, bool]:
        ends = thread_time() + 2 * LONG_SECONDS
        while thread_time() < ends:
            pass
        late = selector.is_long
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return late, selector.spent >= ends

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        assert runner.run(work()) == (True, True)


def test_an_iteration_that_waits_for_a_core_or_the_interpreter_is_not_long() -> None:
    # A thread that sleeps takes no processor time, and neither does one that other programs keep from running.
    selector = TimedSelector()

    async def wait() -> tuple[bool, list[int]]:
        sleep(2 * LONG_SECONDS)
        late, turns, called = selector.is_long, Turns(selector, 8), list[int]()
        for number in range(15):
            turns.add(partial(called.append, number))
        begun = [0]
        while len(called) < 15:
            sleep(2 * SHORT_SECONDS)
            await asyncio.sleep(0)
            begun.append(len(called))
        return late, begun

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        late, begun = runner.run(wait())
    assert not late
    assert [after - before for before, after in pairwise(begun)] == [1, 2, 4, 8]


def test_while_an_event_loop_waits_no_iteration_goes_on() -> None:
    selector = TimedSelector()
    seen: list[float] = []

    async def wait() -> None:
        answered = asyncio.Event()
        loop = asyncio.get_running_loop()

        def look() -> None:
            ends = perf_counter() + 10
            while selector.began != math.inf and perf_counter() < ends:  # it is about to wait, for this thread
                pass
            seen.append(selector.began)
            loop.call_soon_threadsafe(answered.set)

        thread = threading.Thread(target=look)
        thread.start()
        async with asyncio.timeout(60):
            await answered.wait()
        thread.join()

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(wait())
    assert seen == [math.inf]
