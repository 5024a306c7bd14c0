"""The suite's orchestrator: it signs requests, sends jobs, and records the provider's reports."""

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
"""Seconds within which a provider must report; a slower site sets `--report-timeout`."""
TERMINAL = {"SUCCESS", "FAILURE", "EXPIRED"}


@workflow.defn(name="Job")
class RecordedJob:
    """Record the messages to a job. It has the real workflow's public names, not its rules."""

    @workflow.init
    def __init__(self, job: dict[str, Any], has_credits: bool = True) -> None:
        self._job = job
        self._has_credits = has_credits
        self._messages: list[dict[str, Any]] = []
        self._charges: list[dict[str, Any]] = []

    @workflow.run
    async def run(self, job: dict[str, Any], has_credits: bool = True) -> None:
        """Receive messages for as long as the server lives."""
        await workflow.wait_condition(lambda: False)

    @workflow.signal
    def update(self, message: dict[str, Any]) -> None:
        """Record a report."""
        self._messages.append(message)

    @workflow.update
    def charge(self, message: dict[str, Any]) -> dict[str, Any]:
        """Record charges, with `isLate` after the end; none is paid without credits."""
        recorded = {charge["chargeId"] for charge in self._charges}
        repeats = [
            {"id": charge["chargeId"]}
            for charge in message["charges"]
            if charge["chargeId"] in recorded
        ]
        states = {update.get("state") for report in self._messages for update in report["updates"]}
        new = [charge for charge in message["charges"] if charge["chargeId"] not in recorded]
        self._charges.extend(charge | {"isLate": bool(states & TERMINAL)} for charge in new)
        unpaid = [] if self._has_credits else [{"id": charge["chargeId"]} for charge in new]
        return {"insufficientFunds": unpaid, "duplicateCharges": repeats}

    @workflow.query
    def job(self) -> dict[str, Any]:
        """Return the job as it was sent."""
        return self._job

    @workflow.query
    def reports(self) -> dict[str, Any]:
        """Return all recorded messages and charges."""
        return {"messages": self._messages, "charges": self._charges}


@dataclass(frozen=True)
class ProviderUnderTest:
    """The address of a provider, and the private key (PEM) whose public half it trusts."""

    url: str
    id: str
    private_key: str
    issuer: str = "cloud.sdu.dk"


@dataclass
class ContractOrchestrator:
    """Call one provider, and read its reports."""

    provider: ProviderUnderTest
    temporal: Client
    timeout: float = TIMEOUT
    _answered: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Updates in answers to `create`, which count as reports."""

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a valid token with changes; None drops a claim."""
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
        """Sign a token as the orchestrator does."""
        return jwt.encode(
            self.claims(**changes), key or self.provider.private_key, algorithm="RS256"
        )

    def confused_token(self) -> str:
        """Sign a token by HS256 with the public key as the secret (algorithm confusion)."""
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
        """Send a request with this `Authorization` header; None sends none."""
        headers = {"Content-Type": "application/json"} if method == "POST" else {}
        if authorization is not None:
            headers["Authorization"] = authorization
        url = f"{self.provider.url}/ucloud/{self.provider.id}/jobs/{call}"
        async with httpx.AsyncClient(headers=headers, timeout=30, follow_redirects=False) as client:
            return await client.request(method, url, **body)

    async def get(self, call: str) -> httpx.Response:
        """Send a signed GET."""
        return await self.send("GET", call, authorization=f"Bearer {self.token()}")

    async def post(self, call: str, *items: Any) -> httpx.Response:
        """Send a signed POST of items."""
        answer = await self.send(
            "POST", call, authorization=f"Bearer {self.token()}", json={"items": list(items)}
        )
        if call == "" and answer.is_success:
            responses = answer.json().get("responses")
            is_complete = isinstance(responses, list) and len(responses) == len(items)
            assert is_complete, (
                f"`create` must give one response for each item; it said {answer.text}."
            )
            for item, response in zip(items, responses, strict=True):
                updates = (response or {}).get("updates") or []
                if item["id"] not in self._answered:
                    self._answered[item["id"]] = updates
        return answer

    async def start_workflow(self, job: dict[str, Any], has_credits: bool = True) -> dict[str, Any]:
        """Start the job's workflow, which records the reports about it."""
        await self.temporal.start_workflow(
            "Job", args=[job, has_credits], id=job["id"], task_queue=TASK_QUEUE
        )
        return job

    async def created(self, job: dict[str, Any], has_credits: bool = True) -> dict[str, Any]:
        """Start the job's workflow, and have the provider accept the job."""
        await self.start_workflow(job, has_credits)
        answer = await self.post("", job)
        assert answer.is_success, (
            f"A provider must accept a job of a product that it offers; it said {answer.text}."
        )
        return job

    async def updates(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """Return all reported updates of a job, in order."""
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
        """Return all charges of a job."""
        recorded = await self.temporal.get_workflow_handle(job["id"]).query(
            "reports", result_type=dict
        )
        return list(recorded["charges"])

    async def reported(
        self, job: dict[str, Any], wanted: Callable[[str], bool], rule: str
    ) -> dict[str, Any]:
        """Wait for a report whose state is wanted; `rule` is the message of a failure."""
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
        """Wait until RUNNING is reported."""
        await self.reported(
            job, "RUNNING".__eq__, "A provider must report RUNNING when a job starts."
        )

    async def end_of(self, job: dict[str, Any]) -> dict[str, Any]:
        """Wait for the job's terminal report."""
        return await self.reported(
            job, TERMINAL.__contains__, "A provider must report how each job ends."
        )

    async def states(self, job: dict[str, Any]) -> list[str]:
        """Return the reported states in order, without repeats."""
        states: list[str] = []
        for update in await self.updates(job):
            if update.get("state") and states[-1:] != [update["state"]]:
                states.append(update["state"])
        return states

    async def output(self, job: dict[str, Any], rank: int = 0) -> dict[str, str]:
        """Return a rank's standard output and error, as `follow` sends them until it closes."""
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
