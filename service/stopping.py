"""A process that is asked to stop ends in bounded time, whatever it still does."""

from __future__ import annotations

import logging
import os
import sys
import threading

log = logging.getLogger("service.stopping")


def leave_at_the_latest(seconds: float) -> None:
    """End this process in that time with exit code 0, unless it has ended by itself.

    For processes that lose nothing when they are killed. A thread of its own, so that it also holds for an event loop
    that hangs.
    """
    timer = threading.Timer(seconds, _leave, [seconds])
    timer.daemon = True
    timer.start()


def _leave(seconds: float) -> None:
    log.warning("Stopped after %.0f s with work under way, which is done again elsewhere.", seconds)
    sys.stdout.flush()
    logging.shutdown()
    os._exit(0)
