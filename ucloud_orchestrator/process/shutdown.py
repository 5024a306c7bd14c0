"""A process that is asked to stop ends in bounded time, whatever it still does."""

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

log = logging.getLogger(__name__)

FINAL_LOG_TIMEOUT = 1.0
"""Seconds that the last word in the log may take."""


class ShutdownWatchdog:
    """Ends this process so many seconds after `begin`, unless it has ended by itself.

    For processes that lose nothing when they are killed. A thread of its own, so that it also holds
    for an event loop that hangs; but Python must come to run the handler of the signal.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._code: int | None = None
        # Unlike a lock, a pipe may be used in the handler of a signal.
        self._begun, self._begin = os.pipe()
        threading.Thread(target=self._wait, name="deadline", daemon=True).start()

    def begin(self, code: int = 0) -> None:
        """Count from now, and end with this exit code; only the first call counts.

        May be called by a signal.
        """
        if self._code is None:
            self._code = code
            os.write(self._begin, b".")

    def _wait(self) -> None:
        os.read(self._begun, 1)
        time.sleep(self._seconds)
        # What hangs may hold the locks of the log.
        telling = threading.Thread(target=self._report_progress, daemon=True)
        telling.start()
        telling.join(FINAL_LOG_TIMEOUT)
        os._exit(self._code or 0)

    def _report_progress(self) -> None:
        log.warning(
            "The process ends after %.0f s with work under way, which is done again.", self._seconds
        )
        sys.stdout.flush()
        logging.shutdown()


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
