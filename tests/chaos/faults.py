"""Inject faults by a schedule that a seed repeats."""

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
    """A kind of fault, the seconds before it, and how long it takes."""

    pause: float
    kind: str
    seconds: float


def schedule(seed: int, count: int) -> list[Fault]:
    """Return so many faults; the first ones are one of each kind, in a random order."""
    chance = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += chance.sample(KINDS, len(KINDS))
    return [
        Fault(chance.uniform(0.2, 1.5), kind, chance.uniform(0.3, 2.5)) for kind in kinds[:count]
    ]


class FaultInjector:
    """Injects the faults of a schedule, and repairs everything at its end."""

    def __init__(self, stack: ChaosStack, log: Callable[[str], None]) -> None:
        self._stack = stack
        self._log = log
        self._processes = {process.name: process for process in stack.processes}

    async def inject(self, faults: list[Fault]) -> None:
        """Inject one fault after the other; a killed process is started again after its time."""
        try:
            for number, fault in enumerate(faults, 1):
                await asyncio.sleep(fault.pause)
                self._log(
                    f"fault {number} of {len(faults)}: {fault.kind} for {fault.seconds:.1f} s"
                )
                await self._inject(fault)
        finally:
            await self.repair()

    async def repair(self) -> None:
        """Repair the links, restart processes that have ended, and wait until all serve."""
        for link in self._stack.links.values():
            link.repair()
        self._stack.answers.is_faulty = False
        for process in self._stack.processes:
            await self._start(process)

    async def _inject(self, fault: Fault) -> None:
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
            link.repair()

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
        process = self._processes[what]
        assert process.process is not None
        process.process.kill()
        await asyncio.to_thread(process.process.wait)
        await asyncio.sleep(seconds)
        await self._start(process)

    async def _start(self, process: ManagedProcess) -> None:
        assert process.process is not None
        if process.process.poll() is None and process.is_ready(process):
            return
        # A worker ends when the server or the database is away as it starts: systemd restarts it.
        for _ in range(20):
            if process.process.poll() is not None:
                process.start()
            with contextlib.suppress(Exception):
                await asyncio.to_thread(process.wait_until_ready)
                return
        raise RuntimeError(f"The {process.name} could not be started again: see {process.log}.")

    async def _pause(self, what: str, seconds: float) -> None:
        process = None if what == "database" else self._processes[what]
        pids = self._stack.database.pids if process is None else [process.pid]
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
