"""The faults, and their schedule, which a seed repeats."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.processes import ChaosStack
from ucloud_orchestrator.cli.supervisor import ManagedProcess

KINDS = (
    "kill worker",
    "kill second-worker",
    "kill provider",
    "kill temporal",
    "kill database",
    "pause worker",
    "pause provider",
    "pause temporal",
    "pause database",
    "cut worker to temporal",
    "cut provider to temporal",
    "cut clients to temporal",
    "cut worker to provider",
    "cut worker to database",
    "slow worker to temporal",
    "slow worker to provider",
    "slow worker to database",
    "faulty answers",
)


@dataclass(frozen=True)
class Fault:
    """What happens, after how many seconds of peace, and for how long."""

    pause: float
    kind: str
    seconds: float


def schedule(seed: int, count: int) -> list[Fault]:
    """So many faults; the first ones are one of each kind, in a random order."""
    chance = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += chance.sample(KINDS, len(KINDS))
    return [
        Fault(chance.uniform(0.2, 1.5), kind, chance.uniform(0.3, 2.5)) for kind in kinds[:count]
    ]


class FaultInjector:
    """Injects the faults of a schedule, and repairs everything at its end."""

    def __init__(self, stack: ChaosStack, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._say = say
        self._parts = {part.name: part for part in stack.parts}

    async def inject(self, faults: list[Fault]) -> None:
        """Inject one fault after the other; what was killed is started again after its time."""
        try:
            for number, fault in enumerate(faults, 1):
                await asyncio.sleep(fault.pause)
                self._say(
                    f"fault {number} of {len(faults)}: {fault.kind} for {fault.seconds:.1f} s"
                )
                await self._happen(fault)
        finally:
            await self.mend()

    async def mend(self) -> None:
        """Start what died on its own, let everything through, and wait until all serve."""
        for link in self._stack.links.values():
            link.mend()
        self._stack.answers.is_faulty = False
        for part in self._stack.parts:
            await self._start(part)

    async def _happen(self, fault: Fault) -> None:
        verb, _, what = fault.kind.partition(" ")
        if verb == "kill":
            await self._kill(what, fault.seconds)
        elif verb == "pause":
            await self._pause(what, fault.seconds)
        elif verb == "faulty":
            self._stack.answers.is_faulty = True
            await asyncio.sleep(2 * fault.seconds)
            self._stack.answers.is_faulty = False
        else:
            link = self._stack.links[what]
            if verb == "cut":
                link.cut()
            else:
                link.delay = fault.seconds / 5
            await asyncio.sleep(fault.seconds)
            link.mend()

    async def _kill(self, what: str, seconds: float) -> None:
        if what == "database":
            self._stack.database.kill()
            await asyncio.sleep(seconds)
            for attempt in range(10):  # until the last of its old processes is gone
                with contextlib.suppress(Exception):
                    await asyncio.to_thread(self._stack.database.start)
                    return
                await asyncio.sleep(0.2 * (attempt + 1))
            raise RuntimeError("PostgreSQL could not be started again.")
        part = self._parts[what]
        assert part.process is not None
        part.process.kill()
        await asyncio.to_thread(part.process.wait)
        await asyncio.sleep(seconds)
        await self._start(part)

    async def _start(self, part: ManagedProcess) -> None:
        assert part.process is not None
        if part.process.poll() is None and part.is_ready(part):
            return
        # A worker that starts while the server or the database is away says so and ends, as under
        # systemd.
        for _ in range(20):
            if part.process.poll() is not None:
                part.start()
            with contextlib.suppress(Exception):
                await asyncio.to_thread(part.wait_until_ready)
                return
        raise RuntimeError(f"The {part.name} could not be started again: see {part.log}.")

    async def _pause(self, what: str, seconds: float) -> None:
        part = None if what == "database" else self._parts[what]
        pids = self._stack.database.pids if part is None else [part.pid]
        with _stopped(pids):
            await asyncio.sleep(seconds)


@contextlib.contextmanager
def _stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
