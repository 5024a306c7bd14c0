"""How long things may take, and how they are tried again. Each number has its reason beside it."""

from datetime import timedelta

from temporalio.common import RetryPolicy

STORE_ATTEMPT = timedelta(seconds=10)
"""One SQL transaction; longer than any lock wait of SQLite (5 s)."""

BATCH_STORE_ATTEMPT = timedelta(seconds=60)
"""The same for all jobs of a batch at once, with the look-ups of their peers."""

STORE_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10)
)
"""Without an end: a job must not be lost because its database was away."""

PROVIDER_ATTEMPT = timedelta(seconds=60)
"""Twice the HTTP client's own 30 s, so that the client's error, which says more, comes first."""

PROVIDER_HEARTBEAT = timedelta(seconds=10)
"""Within this time a dead worker's call is tried elsewhere, and a cancelled call learns of it."""

PROVIDER_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
)
"""For as long as the job lives; 30 s is what a user waits at most after the provider is back."""

REQUEST_TIMEOUT = timedelta(minutes=2)
"""How long `extend`, `suspend` and `unsuspend` try: somebody is waiting for their answer."""

TERMINATE_TIMEOUT = timedelta(hours=24)
"""How long an unreachable provider is asked to stop a job before the job is given up as FAILURE."""

FINAL_STATE_TIMEOUT = timedelta(seconds=60)
"""How long a provider that has confirmed the end may take to report the final state."""

CREDIT_GRACE = timedelta(minutes=2)
"""How long a provider may take to stop a job whose wallet is empty, or its owner to find credits.
"""

PROVIDER_CHECK_ATTEMPT = timedelta(minutes=5)
"""Far longer than ten thousand live jobs take."""

MONITOR_TIMEOUT = timedelta(minutes=10)
"""How long jobs that cannot be cancelled are tried; the next check finds them again."""
