"""The exit codes of the command line, which other programs depend on."""

from __future__ import annotations

JOB_FAILED = 1
"""The job ended in FAILURE or EXPIRED."""
REJECTED = 2
"""The request was rejected, or the usage is wrong."""
UNREACHABLE = 3
"""Temporal cannot be reached, or the stack cannot run."""
INTERRUPTED = 130
"""Ctrl-C: 128 and the number of SIGINT, as shells count."""
