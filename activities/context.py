"""Where an activity runs."""

from __future__ import annotations

from temporalio import activity


def workflow_id() -> str:
    """The workflow that the activity belongs to; only for activities that are never started on
    their own.
    """
    workflow_id = activity.info().workflow_id
    assert workflow_id is not None
    return workflow_id
