"""The delays between attempts."""

from __future__ import annotations

from ucloud_orchestrator.models.backoff import Backoff


def test_delays_double_up_to_the_maximum_until_reset() -> None:
    backoff = Backoff(initial=0.5, maximum=3)
    assert [backoff.next_delay() for _ in range(5)] == [0.5, 1, 2, 3, 3]
    backoff.reset()
    assert backoff.next_delay() == 0.5
