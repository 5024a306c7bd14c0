"""`JobClient`: a user's connection to the orchestrator."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar

from pydantic import ValidationError
from temporalio.client import Client

from client.connection import Actor, ActorConnection
from client.errors import JobClosed, RequestRefused, map_errors
from client.logs import DEFAULT_TIMEOUT, LogReader
from client.reader import JobReader
from client.sources import JobFilter
from client.submission import JobSubmitter
from client.wallets import WalletClient
from ucloud_orchestrator.models.base import ApiModel, error_messages
from ucloud_orchestrator.models.errors import MAXIMUM_SENTENCE, ErrorCode
from ucloud_orchestrator.models.job import (
    Job,
    JobSpecification,
    Permission,
    ResourceAclEntry,
    SimpleDuration,
)
from ucloud_orchestrator.models.messages import (
    AclRequest,
    ExtendRequest,
    RenameRequest,
    WalletsAnswer,
)
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.provider_api import FollowMessage, LogsRequest, LogStream
from ucloud_orchestrator.models.session import (
    OPEN_SESSION,
    OpenSession,
    OpenSessionRequest,
    SessionType,
    challenge_of,
    with_verifier,
)
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.temporal import names
from ucloud_orchestrator.temporal.connection import connect_to_temporal

Message = TypeVar("Message", bound=ApiModel)


class JobClient:
    """A user's connection to the orchestrator.

    Every method may raise `Unreachable`. Then a repeat is safe, except of `grant`.

    >>> jobs = await JobClient.connect(Actor(username="alice"))
    >>> job = await jobs.create(JobSpecification.model_validate({...}))
    >>> job = await jobs.wait(job.id)
    """

    def __init__(self, temporal: Client, actor: Actor) -> None:
        self._connection = ActorConnection(temporal, actor)
        self._reader = JobReader(self._connection)
        self._submitter = JobSubmitter(self._connection, self._reader)
        self._logs = LogReader(self._connection, self._reader)
        self._wallets = WalletClient(self._connection)

    @classmethod
    async def connect(
        cls, actor: Actor, address: str | None = None, namespace: str | None = None
    ) -> JobClient:
        """Connect to Temporal; the defaults are Temporal's environment variables and profiles."""
        with map_errors():
            return cls(await connect_to_temporal(address, namespace), actor)

    @staticmethod
    def new_job_id() -> str:
        """Return an id with which a call of `create` or `create_many` can be repeated."""
        return names.new_job_id()

    @property
    def workspace(self) -> Workspace:
        """The workspace that pays for the actor's jobs: the project, or the user."""
        return self._connection.workspace

    async def create(
        self,
        specification: JobSpecification,
        job_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> Job:
        """Start a job and wait until its provider has accepted it.

        Idempotent by `job_id` (see `new_job_id`). After `timeout` the job goes on without the
        caller.

        Raises `JobRejected` with a code and all findings, or `Unreachable`.
        """
        return await self._submitter.create(specification, job_id or self.new_job_id(), timeout)

    async def create_many(
        self,
        specifications: Sequence[JobSpecification],
        batch_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> list[Job]:
        """Start several jobs, all or none, also across providers.

        Idempotent by `batch_id` (see `new_job_id`). Raises `JobRejected` with all findings, each
        with the index of its job, or `Unreachable`.
        """
        return await self._submitter.create_many(
            specifications, batch_id or self.new_job_id(), timeout
        )

    async def retrieve(self, job_id: str) -> Job:
        """Return the job as it is now, with all its updates. Raises `JobNotFound`."""
        return await self._reader.retrieve(job_id)

    async def browse(
        self, filters: JobFilter | None = None, limit: int = 50, before: str | None = None
    ) -> list[Job]:
        """Return a page of the actor's jobs, newest first, without their updates.

        `before` is the id of the last job of the previous page.
        """
        return await self._reader.browse(filters or JobFilter(), limit, before)

    def follow(self, job_id: str) -> AsyncIterator[Job]:
        """Yield the job now, and after each change until it has ended. Raises `JobNotFound`."""
        return self._reader.follow(job_id)

    async def wait(self, job_id: str) -> Job:
        """Wait until the job has ended and its claims are released, and return it.

        Raises `JobNotFound`.
        """
        return await self._reader.wait(job_id)

    def follow_logs(
        self,
        job_id: str,
        rank: int | None = None,
        stream: LogStream | None = None,
        follow: bool = True,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> AsyncIterator[FollowMessage]:
        """Yield the job's output from its beginning until it has ended; READ suffices.

        Waits while the job is in the queue, and continues after a broken connection. All ranks
        and both streams, unless one is named; without `follow` only the present output. Each
        message has `stdout` or `stderr` of one rank, cut anywhere between two characters.

        Raises `JobNotFound`; `RequestRefused` with `FEATURE_NOT_SUPPORTED_BY_PROVIDER` if the
        product has no logs, or with `PROVIDER_REJECTED` if the provider does not have them; and
        `Unreachable` after `timeout` without a connection.
        """
        request = LogsRequest(rank=rank, stream=stream, follow=follow)
        return self._logs.follow(job_id, request, timeout)

    async def cancel(self, job_id: str, reason: str = "") -> None:
        """Request the cancellation of a job. It has no effect on a job that has ended.

        Raises `JobNotFound`, or `RequestRefused` if the reason is longer than a sentence.
        """
        if len(reason) > MAXIMUM_SENTENCE:
            text = f"The reason must have at most {MAXIMUM_SENTENCE} characters, not {len(reason)}."
            raise RequestRefused(ErrorCode.VERIFICATION_FAILED, text)
        await self._reader.require(job_id, Permission.EDIT)
        reason = reason or f"by {self._connection.actor.username}"
        try:
            with map_errors():
                await self._connection.handle(job_id).cancel(reason=reason)
        except JobClosed:
            await self.retrieve(job_id)

    async def extend(self, job_id: str, requested_time: SimpleDuration) -> None:
        """Add to the job's time allocation. Raises `RequestRefused` or `JobClosed`."""
        request = ExtendRequest(requested_time=requested_time)
        await self._update(job_id, names.UPDATE_EXTEND, request)

    async def suspend(self, job_id: str) -> None:
        """Suspend the job at its provider. Raises `RequestRefused` or `JobClosed`."""
        await self._update(job_id, names.UPDATE_SUSPEND)

    async def unsuspend(self, job_id: str) -> None:
        """Resume a suspended job. Raises `RequestRefused` or `JobClosed`."""
        await self._update(job_id, names.UPDATE_UNSUSPEND)

    async def open_session(
        self, job_id: str, session_type: SessionType, rank: int = 0
    ) -> OpenSession:
        """Open a terminal, a web application or a desktop of a running job.

        The addresses in the answer are valid for minutes. Temporal keeps them without the
        verifier, which only this client has. Raises `RequestRefused` or `JobClosed`.
        """
        verifier = secrets.token_urlsafe(32)
        request = _request(
            OpenSessionRequest,
            session_type=session_type,
            rank=rank,
            challenge=challenge_of(verifier),
        )
        answer = await self._update(job_id, names.UPDATE_OPEN_SESSION, request)
        return with_verifier(OPEN_SESSION.validate_python(answer), verifier)

    async def rename(self, job_id: str, name: str | None) -> None:
        """Rename a live job. Raises `RequestRefused` or `JobClosed`."""
        await self._update(job_id, names.UPDATE_RENAME, _request(RenameRequest, name=name))

    async def update_acl(self, job_id: str, acl: Sequence[ResourceAclEntry]) -> None:
        """Replace the access list of a live job. Raises `RequestRefused` or `JobClosed`."""
        request = _request(AclRequest, acl=list(acl))
        await self._update(job_id, names.UPDATE_ACL, request, Permission.ADMIN)

    async def wallets(self, movements: int = 0) -> WalletsAnswer:
        """Return the wallets of the actor's workspace, and the newest `movements` of its ledger.

        Raises `RequestRefused` if the actor is not a member of the project.
        """
        return await self._wallets.wallets(movements)

    async def grant(
        self, owner: Workspace, category: ProductCategory, amount: int, note: str = ""
    ) -> None:
        """Put credits into a wallet. Not idempotent: each call is a new grant.

        Raises `RequestRefused`, with `FORBIDDEN` if the actor is not an operator.
        """
        await self._wallets.grant(owner, category, amount, note)

    async def holder(self, kind: Literal["ingress", "network"], resource_id: str) -> str | None:
        """Return the id of the live job that claims a resource, None if it is free.

        A resource is a public link (`ingress`) or an IP address (`network`).
        Raises `RequestRefused` with `NOT_FOUND` if the actor may not see the link or the address.
        """
        return await self._wallets.holder(kind, resource_id)

    async def _update(
        self,
        job_id: str,
        name: str,
        argument: ApiModel | None = None,
        permission: Permission = Permission.EDIT,
    ) -> Any:
        await self._reader.require(job_id, permission)
        arguments = [] if argument is None else [argument.to_wire()]
        with map_errors():
            return await self._connection.handle(job_id).execute_update(name, args=arguments)


def _request(model: type[Message], **fields: Any) -> Message:
    """Return the argument of an update.

    Raises `RequestRefused` with a sentence for each wrong field.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        raise RequestRefused(
            ErrorCode.VERIFICATION_FAILED, " ".join(error_messages(error))
        ) from error
