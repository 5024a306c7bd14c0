"""The public names of the orchestrator on Temporal. Programs of others depend on them."""

from __future__ import annotations

import re

import uuid6

WORKFLOW = "Job"
BATCH_WORKFLOW = "JobBatch"
PROVIDER_CHECK_WORKFLOW = "ProviderCheck"
SIGNAL_BATCH_OUTCOME = "batch_outcome"
SIGNAL_LEAVE = "leave"
TASK_QUEUE = "ucloud-jobs"
SIGNAL_UPDATE = "update"
UPDATE_ACCEPTED = "accepted"
UPDATE_EXTEND = "extend"
UPDATE_SUSPEND = "suspend"
UPDATE_UNSUSPEND = "unsuspend"
UPDATE_OPEN_SESSION = "open_session"
UPDATE_CHARGE = "charge"
UPDATE_RENAME = "rename"
UPDATE_ACL = "update_acl"
QUERY_JOB = "job"
ACTIVITY_RETRIEVE_FROM_ARCHIVE = "retrieve_from_archive"
ACTIVITY_BROWSE_ARCHIVE = "browse_archive"
ACTIVITY_GRANT = "grant"
ACTIVITY_BROWSE_WALLETS = "browse_wallets"
ACTIVITY_FIND_HOLDER = "find_holder"
ACTIVITY_BROWSE_MEMBERSHIPS = "browse_memberships"
ACTIVITY_OPEN_LOGS = "open_logs"

JOB_STATE = "JobState"
JOB_OWNER = "JobOwner"
JOB_PROJECT = "JobProject"
JOB_PROVIDER = "JobProvider"
JOB_PRODUCT = "JobProduct"
JOB_APPLICATION = "JobApplication"
JOB_NAME = "JobName"
JOB_PROVIDER_GENERATED_ID = "JobProviderGeneratedId"
SEARCH_ATTRIBUTES = (
    JOB_STATE,
    JOB_OWNER,
    JOB_PROJECT,
    JOB_PROVIDER,
    JOB_PRODUCT,
    JOB_APPLICATION,
    JOB_NAME,
    JOB_PROVIDER_GENERATED_ID,
)
"""All of type Keyword; `ucloud-orchestrator setup` registers them."""

MAXIMUM_JOB_ID_LENGTH = 64
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_job_id(text: str) -> bool:
    """Check the id of a job: it is also a workflow id, and the name of a provider's folder."""
    return len(text) <= MAXIMUM_JOB_ID_LENGTH and _JOB_ID.fullmatch(text) is not None


def provider_task_queue(provider: str) -> str:
    return f"provider-{provider}"


def provider_check_id(provider: str) -> str:
    return f"check-{provider}"


def new_job_id() -> str:
    """Create an id. Ids sort by their time of creation (UUID version 7, RFC 9562)."""
    return str(uuid6.uuid7())
