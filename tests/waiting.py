"""Wait for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Value = TypeVar("Value")


async def eventually(
    condition: Callable[[], Value | Awaitable[Value]], seconds: float = 20.0
) -> Value:
    """Wait until the condition is true, and return its value; fail when the time is up."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        _check_time(condition, seconds, end)
        await asyncio.sleep(0.02)


def wait_until(
    condition: Callable[[], Value], seconds: float = 40.0, problem: str | None = None
) -> Value:
    """Do the same without an event loop; fail with `problem`, or with the condition's source."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        _check_time(condition, seconds, end, problem)
        time.sleep(0.1)
    return value


def _check_time(
    condition: Callable[[], object], seconds: float, end: float, problem: str | None = None
) -> None:
    if time.monotonic() > end:
        problem = problem or inspect.getsource(condition).strip()
        raise AssertionError(f"not within {seconds} s: {problem}")
