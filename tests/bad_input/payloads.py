"""Property tests with Hypothesis: fixed examples, and random ones by a printed seed."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Value = TypeVar("Value")
SEED = int(os.environ.get("UCLOUD_BAD_INPUT_SEED") or random.randrange(2**32))
"""Set the variable to the printed seed of a failed run to repeat its random examples."""


async def attempts(
    strategy: SearchStrategy[Value], check: Callable[[Value], Awaitable[Any]], examples: int
) -> None:
    """Run `check` on this event loop for `examples` values, and for a quarter more by the seed."""
    loop = asyncio.get_running_loop()

    def once(value: Value) -> None:
        asyncio.run_coroutine_threadsafe(_awaited(check, value), loop).result()

    await asyncio.to_thread(tries, strategy, once, examples)


def tries(strategy: SearchStrategy[Value], check: Callable[[Value], Any], examples: int) -> None:
    """Run `check` without an event loop, as `attempts` does."""
    print(f"UCLOUD_BAD_INPUT_SEED={SEED}")
    common: dict[str, Any] = {
        "database": None,
        "deadline": None,
        "suppress_health_check": list(HealthCheck),
        "phases": (Phase.generate, Phase.shrink),
    }
    settings(derandomize=True, max_examples=examples, **common)(given(strategy)(check_of(check)))()
    settings(max_examples=max(1, examples // 4), **common)(
        seed(SEED)(given(strategy)(check_of(check)))
    )()


def check_of(check: Callable[[Value], Any]) -> Callable[[Value], None]:
    """Wrap `check` in a new function for each use: Hypothesis marks the function that it gets."""

    def checked(value: Value) -> None:
        check(value)

    return checked


async def _awaited(check: Callable[[Value], Awaitable[Any]], value: Value) -> None:
    await check(value)


NASTY: list[Any] = [
    None,
    True,
    -1,
    0,
    10**18,
    -(10**18),
    10**400,
    1.5,
    "",
    " ",
    "\0",
    "a\nb",
    "\u202e\U0001f600",
    "../../../etc/passwd",
    "/etc/passwd",
    "..",
    "a" * 10_000,
    [],
    {},
    [[[[[[{}]]]]]],
    {"": ""},
    {"type": "nothing"},
]
"""Invalid values for any field. None is a valid number of replicas."""

json_values: SearchStrategy[Any] = st.recursive(
    st.sampled_from(NASTY)
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
"""Any JSON."""


def paths(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every part of a document."""
    found = [path]
    if isinstance(document, dict):
        found += [inner for key, part in document.items() for inner in paths(part, (*path, key))]
    elif isinstance(document, list):
        found += [
            inner for index, part in enumerate(document) for inner in paths(part, (*path, index))
        ]
    return found


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return the document with another value at a path."""
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = replaced(document[path[0]], path[1:], value)
    return copy


def almost(document: Any) -> SearchStrategy[Any]:
    """Generate the document with invalid values at one or two paths."""

    def one(from_: Any) -> SearchStrategy[Any]:
        return st.builds(
            lambda path, value: replaced(from_, path, value),
            st.sampled_from(paths(from_)),
            json_values,
        )

    return one(document) | one(document).flatmap(one)
