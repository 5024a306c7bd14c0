"""Follows a job: its states and its output together, until all has been shown.

On a terminal it draws a table above the last lines of output; otherwise it prints lines.
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
from ucloud_orchestrator.cli.exit_codes import JOB_FAILED
from ucloud_orchestrator.cli.log_printer import LogPrinter
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import Job, JobState
from ucloud_orchestrator.models.provider_api import FollowMessage

TIMEOUT = timedelta(minutes=1)
"""How long the output may be unreachable before only the states are followed."""
SILENT_CODES = {ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER, ErrorCode.NOT_FOUND}
"""Errors of the output that are not reported: the product has no logs, or there is no job."""
LAST_LINES = 12
"""Lines of output below the table."""
MAX_LINE = 500
"""Characters of such a line that are kept."""
REFRESHES_PER_SECOND = 10.0


async def follow_job(client: JobClient, job_id: str, as_json: bool) -> int:
    """Show the job until it has ended and all of its output was shown; return the exit code.

    Unreachable output is reported on standard error, and the states are followed on. Raises as
    `JobClient.follow`.
    """
    console = output.console()
    has_replicas = (await client.retrieve(job_id)).specification.replicas > 1
    events = _events(client, job_id)
    try:
        if as_json:
            last = await _print_json(events)
        elif console.is_terminal:
            last = await _draw(events, console, has_replicas)
        else:
            last = await _print_lines(events, has_replicas)
    finally:
        await events.aclose()
    return JOB_FAILED if last.status.state in {JobState.FAILURE, JobState.EXPIRED} else 0


async def _events(client: JobClient, job_id: str) -> AsyncGenerator[Job | FollowMessage]:
    """Yield states and output as they come, and the ended job after all of its output."""
    # A queue of one: a slow screen slows the readers down.
    events: asyncio.Queue[Job | FollowMessage | None] = asyncio.Queue(1)

    async def put_states() -> None:
        try:
            async for job in client.follow(job_id):
                if job.status.state.is_terminal:
                    await output_task
                await events.put(job)
        finally:
            await events.put(None)

    async def put_output() -> None:
        try:
            async for message in client.follow_logs(job_id, timeout=TIMEOUT):
                await events.put(message)
        except OrchestratorError as error:
            if not (isinstance(error, RequestRefused) and error.code in SILENT_CODES):
                typer.echo(f"The output is not shown any more: {error}", err=True)

    output_task = asyncio.create_task(put_output())
    states_task = asyncio.create_task(put_states())
    try:
        while (event := await events.get()) is not None:
            yield event
        await states_task
    finally:
        for task in (states_task, output_task):
            task.cancel()
        while not events.empty():  # put_states puts None even when it is cancelled
            events.get_nowait()
        await asyncio.gather(states_task, output_task, return_exceptions=True)


async def _print_json(events: AsyncIterator[Job | FollowMessage]) -> Job:
    last: Job | None = None
    async for event in events:
        output.print_json(event.to_wire())
        sys.stdout.flush()
        last = event if isinstance(event, Job) else last
    assert last is not None
    return last


async def _print_lines(events: AsyncIterator[Job | FollowMessage], has_replicas: bool) -> Job:
    last: Job | None = None
    printer = LogPrinter(prefixed=has_replicas)
    printed_updates = 0
    async for event in events:
        if isinstance(event, Job):
            if event.status.state.is_terminal:
                printer.finish()
            printer.end_line()
            for update in event.updates[printed_updates:]:
                typer.echo(output.update_line(update))
            last, printed_updates = event, len(event.updates)
        else:
            printer.print(event)
    assert last is not None
    return last


async def _draw(
    events: AsyncIterator[Job | FollowMessage], console: Console, has_replicas: bool
) -> Job:
    last: Job | None = None
    lines = _LastLines()
    with Live(console=console, refresh_per_second=REFRESHES_PER_SECOND) as live:
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
    """The last lines of the output, without control characters."""

    def __init__(self) -> None:
        self._complete: deque[tuple[int, str]] = deque(maxlen=LAST_LINES)
        self._unfinished: dict[tuple[int, str], str] = {}

    def add(self, message: FollowMessage) -> None:
        for stream, text in (("stdout", message.stdout), ("stderr", message.stderr)):
            before = self._unfinished.pop((message.rank, stream), "")
            *lines, rest = (before + (text or "")).split("\n")
            self._complete.extend((message.rank, line[-MAX_LINE:]) for line in lines[-LAST_LINES:])
            if rest:
                self._unfinished[message.rank, stream] = rest[-MAX_LINE:]

    def text(self, prefixed: bool) -> Text:
        """Render the lines; with `prefixed`, each with its rank."""
        unfinished = [(rank, line) for (rank, _), line in self._unfinished.items()]
        lines = [*self._complete, *unfinished][-LAST_LINES:]
        return Text(
            "\n".join(
                f"[{rank}] {_printable(line)}" if prefixed else _printable(line)
                for rank, line in lines
            )
        )


def _printable(line: str) -> str:
    """Return the line after its last carriage return, with blanks for control characters."""
    visible = line.rstrip("\r").rpartition("\r")[2]
    return "".join(letter if letter.isprintable() else " " for letter in visible)
