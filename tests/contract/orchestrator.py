"""The orchestrator as the suite plays it: signs requests, sends jobs, and records what the provider
reports.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from temporalio import workflow
from temporalio.client import Client
from websockets.asyncio.client import connect as connect_websocket

TASK_QUEUE = "contract"
TIMEOUT = 40.0
"""Seconds within which a provider has to report; a site whose queue is slower sets
`--report-timeout`.
"""
TERMINAL = {"SUCCESS", "FAILURE", "EXPIRED"}


@workflow.defn(name="Job")
class RecordedJob:
    """A job's workflow that keeps what it is told; it has the public names of the real one and none
    of its rules.
    """

    @workflow.init
    def __init__(self, job: dict[str, Any], has_credits: bool = True) -> None:
        self._job = job
        self._has_credits = has_credits
        self._messages: list[dict[str, Any]] = []
        self._charges: list[dict[str, Any]] = []

    @workflow.run
    async def run(self, job: dict[str, Any], has_credits: bool = True) -> None:
        """Listen for as long as the server lives."""
        await workflow.wait_condition(lambda: False)

    @workflow.signal
    def update(self, message: dict[str, Any]) -> None:
        """The provider's report."""
        self._messages.append(message)

    @workflow.update
    def charge(self, message: dict[str, Any]) -> dict[str, Any]:
        """Everything is paid, or nothing; a repeat is told as one.

        Whether it came after the end is noted.
        """
        known = {charge["chargeId"] for charge in self._charges}
        repeats = [
            {"id": charge["chargeId"]}
            for charge in message["charges"]
            if charge["chargeId"] in known
        ]
        states = {update.get("state") for told in self._messages for update in told["updates"]}
        new = [charge for charge in message["charges"] if charge["chargeId"] not in known]
        self._charges.extend(charge | {"isLate": bool(states & TERMINAL)} for charge in new)
        unpaid = [] if self._has_credits else [{"id": charge["chargeId"]} for charge in new]
        return {"insufficientFunds": unpaid, "duplicateCharges": repeats}

    @workflow.query
    def job(self) -> dict[str, Any]:
        """The job as it was sent."""
        return self._job

    @workflow.query
    def reports(self) -> dict[str, Any]:
        """All that was recorded."""
        return {"messages": self._messages, "charges": self._charges}


@dataclass(frozen=True)
class ProviderUnderTest:
    """Where a provider is, and the private half (PEM) of the key that it trusts."""

    url: str
    id: str
    private_key: str
    issuer: str = "cloud.sdu.dk"


@dataclass
class ContractOrchestrator:
    """Calls one provider, and hears it."""

    provider: ProviderUnderTest
    temporal: Client
    timeout: float = TIMEOUT
    _answered: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Updates that came in answers to `create`, which counts as a report."""

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good token, changed; None leaves one out."""
        now = int(time.time())
        claims = {
            "iss": self.provider.issuer,
            "sub": "_UCloud",
            "role": "SERVICE",
            "iat": now,
            "exp": now + 300,
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(self, key: str | None = None, **changes: Any) -> str:
        """A token that is signed as the orchestrator does."""
        return jwt.encode(
            self.claims(**changes), key or self.provider.private_key, algorithm="RS256"
        )

    def confused_token(self) -> str:
        """A token that is signed by HS256 with the public key as the secret, which anybody could
        make.
        """
        key = load_pem_private_key(self.provider.private_key.encode(), None).public_key()
        secret = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        parts = [
            json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, self.claims())
        ]
        signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
        signature = base64.urlsafe_b64encode(hmac.digest(secret, signed, hashlib.sha256)).rstrip(
            b"="
        )
        return (signed + b"." + signature).decode()

    async def send(
        self, method: str, call: str, *, authorization: str | None, **body: Any
    ) -> httpx.Response:
        """One request with that header, or with none."""
        headers = {"Content-Type": "application/json"} if method == "POST" else {}
        if authorization is not None:
            headers["Authorization"] = authorization
        url = f"{self.provider.url}/ucloud/{self.provider.id}/jobs/{call}"
        async with httpx.AsyncClient(headers=headers, timeout=30, follow_redirects=False) as client:
            return await client.request(method, url, **body)

    async def get(self, call: str) -> httpx.Response:
        """A signed GET."""
        return await self.send("GET", call, authorization=f"Bearer {self.token()}")

    async def post(self, call: str, *items: Any) -> httpx.Response:
        """A signed POST of items."""
        answer = await self.send(
            "POST", call, authorization=f"Bearer {self.token()}", json={"items": list(items)}
        )
        if call == "" and answer.is_success:
            responses = answer.json().get("responses")
            is_whole = isinstance(responses, list) and len(responses) == len(items)
            assert is_whole, (
                f"`create` must give one response for each item; it said {answer.text}."
            )
            for item, said in zip(items, responses, strict=True):
                updates = (said or {}).get("updates") or []
                if item["id"] not in self._answered:
                    self._answered[item["id"]] = updates
        return answer

    async def listen(self, job: dict[str, Any], has_credits: bool = True) -> dict[str, Any]:
        """Start the job's workflow, so that reports about it find somebody."""
        await self.temporal.start_workflow(
            "Job", args=[job, has_credits], id=job["id"], task_queue=TASK_QUEUE
        )
        return job

    async def created(self, job: dict[str, Any], has_credits: bool = True) -> dict[str, Any]:
        """Listen to a job, and have the provider take it."""
        await self.listen(job, has_credits)
        answer = await self.post("", job)
        assert answer.is_success, (
            f"A provider must take a job that it offers the product of; it said {answer.text}."
        )
        return job

    async def updates(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """All that the provider has reported about a job, in order."""
        recorded = await self.temporal.get_workflow_handle(job["id"]).query(
            "reports", result_type=dict
        )
        messages = recorded["messages"]
        assert all(message.get("provider") == self.provider.id for message in messages), (
            f"Each signal `update` must name its provider {self.provider.id!r}."
        )
        return self._answered.get(job["id"], []) + [
            update for message in messages for update in message["updates"]
        ]

    async def charges(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """All charges of a job."""
        recorded = await self.temporal.get_workflow_handle(job["id"]).query(
            "reports", result_type=dict
        )
        return list(recorded["charges"])

    async def reported(
        self, job: dict[str, Any], wanted: Callable[[str], bool], rule: str
    ) -> dict[str, Any]:
        """Wait for a report whose state is wanted; else the rule is broken."""
        end = time.monotonic() + self.timeout
        while True:
            updates = await self.updates(job)
            for update in updates:
                if wanted(update.get("state") or ""):
                    return update
            assert time.monotonic() < end, (
                f"{rule} Within {self.timeout:.0f} s it reported {updates}."
            )
            await asyncio.sleep(0.1)

    async def running(self, job: dict[str, Any]) -> None:
        """Wait until the job is reported to run."""
        await self.reported(
            job, "RUNNING".__eq__, "A provider must report RUNNING when a job starts."
        )

    async def end_of(self, job: dict[str, Any]) -> dict[str, Any]:
        """Wait for the job's terminal report."""
        return await self.reported(
            job, TERMINAL.__contains__, "A provider must report how each job ends."
        )

    async def states(self, job: dict[str, Any]) -> list[str]:
        """The states that were reported, in order, without those that say nothing new."""
        states: list[str] = []
        for update in await self.updates(job):
            if update.get("state") and states[-1:] != [update["state"]]:
                states.append(update["state"])
        return states

    async def output(self, job: dict[str, Any], rank: int = 0) -> dict[str, str]:
        """What `follow` gives until it is closed: all of standard output and error of a rank."""
        url = f"{self.provider.url}/ucloud/{self.provider.id}/jobs/follow".replace("http", "ws", 1)
        texts = {"stdout": "", "stderr": ""}
        headers = {"Authorization": f"Bearer {self.token()}"}
        async with (
            asyncio.timeout(self.timeout),
            connect_websocket(url, additional_headers=headers) as socket,
        ):
            await socket.send(json.dumps({"type": "init", "job": job}))
            async for text in socket:
                message = json.loads(text)
                assert isinstance(message.get("streamId"), str), (
                    "Each message of `follow` must have a `streamId`."
                )
                assert isinstance(message.get("rank"), int), (
                    "Each message of `follow` must have a `rank`."
                )
                for name in texts if message["rank"] == rank else ():
                    texts[name] += message.get(name) or ""
        return texts
