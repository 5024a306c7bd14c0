"""Timeouts and retry policies, each with its reason."""

from datetime import timedelta

from temporalio.common import RetryPolicy

STORE_ATTEMPT = timedelta(seconds=10)
"""One SQL transaction; longer than any lock wait of SQLite (5 s)."""

BATCH_STORE_ATTEMPT = timedelta(seconds=60)
"""One SQL transaction for all jobs of a batch, and the queries of the jobs that they refer to."""

STORE_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10)
)
"""Unlimited: a job must not be lost because its database was away."""

PROVIDER_ATTEMPT = timedelta(seconds=60)
"""Twice the HTTP client's own 30 s, so that its error, which has more detail, comes first."""

PROVIDER_HEARTBEAT = timedelta(seconds=10)
"""Time until a dead worker's call is retried elsewhere, and a cancelled call is notified."""

PROVIDER_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
)
"""Unlimited. A user waits 30 s at most after the provider is back."""

REQUEST_TIMEOUT = timedelta(minutes=2)
"""For `extend`, `suspend`, `unsuspend` and `open_session`: a user waits for the answer."""

TERMINATE_TIMEOUT = timedelta(hours=24)
"""Time for an unreachable provider to stop a job, before the job ends as FAILURE."""

FINAL_STATE_TIMEOUT = timedelta(seconds=60)
"""Time for a provider that has confirmed the end to report the final state."""

CREDIT_GRACE = timedelta(minutes=2)
"""Time for a provider to stop a job whose wallet is empty, or for its owner to find credits."""

PROVIDER_CHECK_ATTEMPT = timedelta(minutes=5)
"""Far longer than ten thousand live jobs take."""

PROVIDER_CHECK_TIMEOUT = timedelta(minutes=10)
"""Time to retry one step of a check; the next check repeats it."""
