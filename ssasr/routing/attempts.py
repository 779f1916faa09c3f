"""Asking again, beside a question that nobody has answered yet.

One address stands for several engines, and one that hangs takes connections and answers none. A
healthy engine answers within milliseconds, so whoever has waited for much longer asks a second
time, and perhaps another engine gets that question. The first one is not taken back: an engine may
be slow, and were it asked anew each time, it would never be done.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from ssasr.runtime.process import plain_nursery

T = TypeVar("T")

AGAIN_SECONDS = 0.25
"""Without an answer until the next question. Some clients expect Begin within a second, which
is time for four."""


async def first_answers(ask: Callable[[int], Awaitable[T]], seconds: float) -> list[T]:
    """What ``ask(1)`` has returned, or ``ask(2)`` and so on, whichever came first; more than one if
    they came at once. The others are cancelled. Raises what the first of them raised, once all that
    were begun have failed or ``seconds`` have passed; trio.TooSlowError if none has failed."""
    answers: list[T] = []
    failures: list[Exception] = []
    asked = 0
    settled = trio.Event()

    async def one(number: int) -> None:
        try:
            answers.append(await ask(number))
        except Exception as failure:
            failures.append(failure)
        if answers or len(failures) == asked:
            settled.set()

    with trio.move_on_after(seconds):
        async with plain_nursery() as nursery:
            while not settled.is_set():
                asked += 1
                nursery.start_soon(one, asked)
                with trio.move_on_after(AGAIN_SECONDS):
                    await settled.wait()
            nursery.cancel_scope.cancel()
    if not answers:
        raise failures[0] if failures else trio.TooSlowError
    return answers
