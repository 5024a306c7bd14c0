"""A job's states and its output together, on a terminal as a table above the last lines, otherwise
line by line.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from client import JobClient, OrchestratorError, RequestRefused
from ucloud_orchestrator.cli import output
from ucloud_orchestrator.cli.log_printer import LogPrinter
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import Job, JobState
from ucloud_orchestrator.models.provider_api import FollowMessage

FAILED = 1
TIMEOUT = timedelta(minutes=1)
"""How long the output may be out of reach before the states go on alone."""
SILENT_CODES = {ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER, ErrorCode.NOT_FOUND}
"""What needs no words: there are no logs, or no job, which the states tell."""
LAST_LINES = 12
"""Lines of output below the table."""
LONGEST_LINE = 500
"""Characters of such a line that are kept."""
REFRESHES = 10.0
"""Times a second that the terminal is drawn anew at the most."""


async def follow_job(client: JobClient, job_id: str, as_json: bool) -> int:
    """Show the job until it has ended and all of its output was shown; returns the exit code.

    Raises as `JobClient.follow`. Products without logs show states alone; logs that cannot be had
    are told of on standard error, and the states go on.
    """
    console = output.console()
    has_replicas = (await client.retrieve(job_id)).specification.replicas > 1
    events = _events(client, job_id)
    try:
        if as_json:
            last = await _as_json(events)
        elif console.is_terminal:
            last = await _live(events, console, has_replicas)
        else:
            last = await _in_lines(events, has_replicas)
    finally:
        await events.aclose()
    return FAILED if last.status.state in {JobState.FAILURE, JobState.EXPIRED} else 0


async def _events(client: JobClient, job_id: str) -> AsyncGenerator[Job | FollowMessage]:
    """States and output as they come; the job's end comes when all of its output has."""
    # One place, so that a slow screen holds up the reading too.
    events: asyncio.Queue[Job | FollowMessage | None] = asyncio.Queue(1)

    async def tell_states() -> None:
        try:
            async for job in client.follow(job_id):
                if job.status.state.is_terminal:
                    await telling_output
                await events.put(job)
        finally:
            await events.put(None)

    async def tell_output() -> None:
        try:
            async for message in client.follow_logs(job_id, timeout=TIMEOUT):
                await events.put(message)
        except OrchestratorError as error:
            if not (isinstance(error, RequestRefused) and error.code in SILENT_CODES):
                typer.echo(f"The output is not shown any more: {error}", err=True)

    telling_output = asyncio.create_task(tell_output())
    telling_states = asyncio.create_task(tell_states())
    try:
        while (event := await events.get()) is not None:
            yield event
        await telling_states
    finally:
        for task in (telling_states, telling_output):
            task.cancel()
        while not events.empty():  # who tells of the end must find a place
            events.get_nowait()
        await asyncio.gather(telling_states, telling_output, return_exceptions=True)


async def _as_json(events: AsyncIterator[Job | FollowMessage]) -> Job:
    last: Job | None = None
    async for event in events:
        output.print_json(event.to_wire())
        sys.stdout.flush()
        last = event if isinstance(event, Job) else last
    assert last is not None
    return last


async def _in_lines(events: AsyncIterator[Job | FollowMessage], has_replicas: bool) -> Job:
    last: Job | None = None
    printer = LogPrinter(prefixed=has_replicas)
    told = 0
    async for event in events:
        if isinstance(event, Job):
            if event.status.state.is_terminal:
                printer.finish()
            printer.end_line()
            for update in event.updates[told:]:
                typer.echo(output.update_line(update))
            last, told = event, len(event.updates)
        else:
            printer.print(event)
    assert last is not None
    return last


async def _live(
    events: AsyncIterator[Job | FollowMessage], console: Console, has_replicas: bool
) -> Job:
    last: Job | None = None
    lines = _LastLines()
    with Live(console=console, refresh_per_second=REFRESHES) as live:
        async for event in events:
            if isinstance(event, Job):
                last = event
            else:
                lines.add(event)
            table = [] if last is None else [output.job_table(last)]
            live.update(Group(*table, lines.text(has_replicas)))
    assert last is not None
    return last


class _LastLines:
    """The last lines of the output, made harmless: what moves the cursor or changes colours is left
    out.
    """

    def __init__(self) -> None:
        self._whole: deque[tuple[int, str]] = deque(maxlen=LAST_LINES)
        self._unfinished: dict[tuple[int, str], str] = {}

    def add(self, message: FollowMessage) -> None:
        for stream, text in (("stdout", message.stdout), ("stderr", message.stderr)):
            *lines, rest = (self._unfinished.pop((message.rank, stream), "") + (text or "")).split(
                "\n"
            )
            self._whole.extend((message.rank, line[-LONGEST_LINE:]) for line in lines[-LAST_LINES:])
            if rest:
                self._unfinished[message.rank, stream] = rest[-LONGEST_LINE:]

    def text(self, prefixed: bool) -> Text:
        unfinished = [(rank, line) for (rank, _), line in self._unfinished.items()]
        lines = [*self._whole, *unfinished][-LAST_LINES:]
        return Text(
            "\n".join(
                f"[{rank}] {_shown(line)}" if prefixed else _shown(line) for rank, line in lines
            )
        )


def _shown(line: str) -> str:
    """What a terminal would show of the line after its last carriage return."""
    return "".join(
        letter if letter.isprintable() else " " for letter in line.rstrip("\r").rpartition("\r")[2]
    )
