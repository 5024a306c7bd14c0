"""Reachability between jobs: real namespaces, and real TCP between real jobs."""

from __future__ import annotations

import asyncio
import os
import resource
import shlex
import socket
from pathlib import Path

import psutil
import pytest

from tests.builders import shell_job
from tests.provider.network_fixtures import (
    LISTEN,
    PYTHON,
    address_of,
    answers,
    connecting,
    listen,
    listening,
    networked,
    peer,
    processes,
    separate,
    stop_all,
    with_python,
)
from tests.provider.provider_process import Reports, Served, serving
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState
from ucloud_orchestrator.provider.network import namespaces
from ucloud_orchestrator.provider.network.endpoint import Endpoint
from ucloud_orchestrator.provider.network.networks import Networks
from ucloud_orchestrator.temporal.names import new_job_id

__all__ = ["networked"]
pytestmark = pytest.mark.long


@separate
async def test_a_peer_is_reached_by_its_host_name_at_its_rank_0(networked: Served) -> None:
    database = listening(replicas=2)
    await listen(networked, database)
    job = connecting("db:5000", "127.0.0.1:5000", replicas=3, resources=[peer("db", database)])
    await networked.call("", job)
    for rank in range(3):
        expected = {"db:5000": f"{database['id']} 0", "127.0.0.1:5000": "refused"}
        assert await answers(networked, job, rank) == expected


@separate
async def test_a_job_and_its_peers_reach_each_other(networked: Served) -> None:
    one, two = listening(), listening()
    await listen(networked, one, two)
    both = listening(resources=[peer("one", one), peer("two.example.org", two), peer("again", one)])
    await listen(networked, both)
    asked = connecting(
        "one:5000",
        "TWO.example.org:5000",
        "again:5000",
        resources=both["specification"]["resources"],
    )
    await networked.call("", asked)
    replies = await answers(networked, asked)
    assert list(replies.values()) == [f"{one['id']} 0", f"{two['id']} 0", f"{one['id']} 0"]


@separate
async def test_a_job_that_is_not_a_peer_is_not_reached(networked: Served) -> None:
    shared = listening()
    await listen(networked, shared)
    hidden = listening(resources=[peer("shared", shared)])
    await listen(networked, hidden)
    addresses = [address_of(networked, job) for job in (shared, hidden)]
    stranger = connecting("127.0.0.1:5000", *(f"{address}:5000" for address in addresses))
    # A peer of a peer is not a peer.
    half = connecting(
        *(f"{address}:5000" for address in addresses), resources=[peer("shared", shared)]
    )
    await networked.call("", stranger, half)
    assert set((await answers(networked, stranger)).values()) == {"refused"}
    assert list((await answers(networked, half)).values()) == [f"{shared['id']} 0", "refused"]


@separate
async def test_services_of_the_machine_are_not_reached(networked: Served) -> None:
    port = networked.url.rpartition(":")[2]
    here = socket.socket(socket.AF_UNIX)
    here.bind(f"\0{new_job_id()}")
    here.listen()
    name = here.getsockname().decode()
    code = f"import socket; socket.socket(socket.AF_UNIX).connect({name!r})"
    # The network forwards nothing, even if this machine does.
    job = connecting(
        f"127.0.0.1:{port}",
        f"localhost:{port}",
        f"{socket.gethostname()}:{port}",
        f"{namespaces.SLIRP_NETWORK[2]}:{port}",
        before=f"{PYTHON} -c {shlex.quote(code)} 2>&1 | grep -q ConnectionRefused && echo "
        "abstract refused;"
        "echo forwards $(cat /proc/sys/net/ipv4/ip_forward); ",
    )
    await networked.call("", job)
    replies = await answers(networked, job)
    here.close()
    assert replies.pop("abstract") == "refused"
    assert replies.pop("forwards") == "0"
    assert len(replies) == 4
    assert set(replies.values()) == {"refused"}


@separate
async def test_a_provider_with_a_thousand_open_files_makes_networks(networked: Served) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    descriptors: list[int] = []
    try:
        while not descriptors or descriptors[-1] < 1024:
            descriptors.append(os.open("/dev/null", os.O_RDONLY))
        job = shell_job("true")
        await networked.call("", job)
        assert (await networked.end_of(job)).state is JobState.SUCCESS
    finally:
        for number in descriptors:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.skipif(
    namespaces.internet_unavailable_reason() is not None,
    reason=f"{namespaces.internet_unavailable_reason()}",
)
async def test_other_machines_are_reached(networked: Served) -> None:
    own = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family is socket.AF_INET and not entry.address.startswith("127.")
    ]
    if not own:
        pytest.skip("this machine has no address but that of its loopback")

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"outside")
        writer.close()

    async with await asyncio.start_server(greet, own[0], 0) as server:
        target = f"{own[0]}:{server.sockets[0].getsockname()[1]}"
        job = connecting(target)
        await networked.call("", job)
        assert await answers(networked, job) == {target: "outside"}


@separate
async def test_replicas_reach_each_other_on_the_same_port(networked: Served) -> None:
    code = LISTEN.replace("while True:", "for _ in range(3):")
    wait = f"{PYTHON} -c {shlex.quote(code)} > /work/$UCLOUD_RANK.log & "
    wait += "until [ $(cat /work/*.log | grep -c listening) = 3 ]; do sleep 0.1; done; "
    nodes = [f"$(cat /etc/ucloud/node-{rank}.txt):5000" for rank in range(3)]
    job = connecting(*nodes, before=wait, replicas=3)
    job["status"]["resolvedApplication"]["application"]["invocation"][2] += "; wait"
    await networked.call("", job)
    for rank in range(3):
        replies = await answers(networked, job, rank)
        assert list(replies.values()) == [f"{job['id']} {other}" for other in range(3)]


async def test_a_peer_that_does_not_run_here_is_rejected(networked: Served) -> None:
    ended, foreign = shell_job("true"), shell_job("true")
    await networked.call("", ended)
    await networked.end_of(ended)
    for other in (ended, foreign):
        answer = await networked.call("", shell_job("true", resources=[peer("db", other)]))
        assert answer.status_code == 400
        assert (
            answer.json()["why"]
            == f"The peer db (job {other['id']}) does not run at this provider."
        )


async def test_with_the_host_network_a_peer_is_at_the_loopback(tmp_path: Path) -> None:
    async with serving(with_python(Served(tmp_path, Reports()), network="host")) as served:
        database = listening()
        await listen(served, database)
        job = connecting("db:5000", resources=[peer("db", database)])
        await served.call("", job)
        assert await answers(served, job) == {"db:5000": f"{database['id']} 0"}
        await stop_all(served)


@separate
async def test_a_port_of_each_rank_is_reached_from_the_provider(networked: Served) -> None:
    job = listening(replicas=2)
    await listen(networked, job)
    networks = Networks(networked.settings)
    folders = set()
    for rank in (0, 1, 1):
        endpoint = await networks.endpoint(job["id"], rank, 5000)
        assert endpoint.socket is not None
        folders.add(endpoint.socket.parent)
        reader, writer = await asyncio.open_unix_connection(endpoint.socket)
        assert await asyncio.wait_for(reader.read(), 20) == f"{job['id']} {rank}".encode()
        writer.close()
    closed = await networks.endpoint(job["id"], 0, 5001)
    reader, writer = await asyncio.open_unix_connection(closed.socket)
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    (folder,) = folders
    assert folder.stat().st_mode & 0o077 == 0
    await networked.call("terminate", job)
    await networked.end_of(job)
    await eventually(
        lambda: not folder.exists() and not [p for p in processes() if str(folder) in p]
    )


async def test_with_the_host_network_a_port_is_at_the_loopback(tmp_path: Path) -> None:
    async with serving(with_python(Served(tmp_path, Reports()), network="host")) as served:
        job = listening()
        await listen(served, job)
        assert await Networks(served.settings).endpoint(job["id"], 0, 5000) == Endpoint(
            host="127.0.0.1", port=5000
        )
        await stop_all(served)
