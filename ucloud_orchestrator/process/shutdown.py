"""End a process in bounded time after it was asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

log = logging.getLogger(__name__)

FINAL_LOG_TIMEOUT = 1.0
"""Seconds for the last log message."""


class ShutdownWatchdog:
    """Ends this process a number of seconds after `begin`, unless it has ended before.

    For processes that lose nothing when they are killed. It runs in a thread, so it also ends a
    process whose event loop hangs. Only a signal handler that Python cannot run prevents it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._code: int | None = None
        # Unlike a lock, a pipe is safe in a signal handler.
        self._reader, self._writer = os.pipe()
        threading.Thread(target=self._wait, name="shutdown-watchdog", daemon=True).start()

    def begin(self, code: int = 0) -> None:
        """Start the countdown; the process ends with this exit code. Idempotent.

        Safe in a signal handler.
        """
        if self._code is None:
            self._code = code
            os.write(self._writer, b".")

    def _wait(self) -> None:
        os.read(self._reader, 1)
        time.sleep(self._seconds)
        # A thread that hangs may hold the locks of the logging handlers.
        last_message = threading.Thread(target=self._log_end, daemon=True)
        last_message.start()
        last_message.join(FINAL_LOG_TIMEOUT)
        os._exit(self._code or 0)

    def _log_end(self) -> None:
        log.warning(
            "The process ends after %.0f s with work under way, which is done again.", self._seconds
        )
        sys.stdout.flush()
        logging.shutdown()


def exit_process(code: int) -> NoReturn:
    """Exit without the interpreter's shutdown, in which the Temporal SDK may abort.

    About one short-lived process in ten does (sdk-python issue 300, decision 0006).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)


def handle_stop_signals(watchdog: ShutdownWatchdog, stop: Callable[[], None]) -> None:
    """On SIGTERM or SIGINT, begin the watchdog, and call `stop` in the running loop."""
    loop = asyncio.get_running_loop()

    def handle(_number: int, _frame: FrameType | None) -> None:
        watchdog.begin()
        with contextlib.suppress(RuntimeError):  # the loop may be closed already
            loop.call_soon_threadsafe(stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        # Not `loop.add_signal_handler`: the watchdog must begin even if the loop hangs.
        signal.signal(number, handle)
