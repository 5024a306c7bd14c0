"""What a job reaches and what it does not: real namespaces, and real TCP between real jobs."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from models import Job, JobState
from models.names import new_job_id
from provider import namespaces
from provider.endpoint import Endpoint
from provider.ledger import Ledger
from provider.networks import Networks, NoNetwork
from tests.conditions import eventually
from tests.provider.served import Reports, Served, serving, shell

pytestmark = pytest.mark.long

separate = pytest.mark.skipif(
    namespaces.obstacle() is not None, reason=f"no networks of their own: {namespaces.obstacle()}"
)
PYTHON = Path(sys.executable).resolve()

LISTEN = """
import os, socket
server = socket.create_server(("0.0.0.0", 5000))
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(f"{os.environ['UCLOUD_JOB_ID']} {os.environ['UCLOUD_RANK']}".encode())
    connection.close()
"""
CONNECT = """
import socket, sys
def answer(target):
    host, port = target.rsplit(":", 1)
    # A program may also insist on an interface, and does not need a route then.
    for interface in ("", *(name for _, name in socket.if_nameindex())):
        try:
            with socket.socket() as connection:
                connection.settimeout(1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
                connection.connect((host, int(port)))
                return connection.makefile().read() or "closed"
        except OSError:
            pass
    return "refused"
for target in sys.argv[1:]:
    print(target, answer(target), flush=True)
"""


def listening(replicas: int = 1, **changes: Any) -> dict[str, Any]:
    return shell(f"{PYTHON} -c {shlex.quote(LISTEN)}", replicas, **changes)


def connecting(*targets: str, replicas: int = 1, before: str = "", **changes: Any) -> dict[str, Any]:
    return shell(f"{before}{PYTHON} -c {shlex.quote(CONNECT)} {' '.join(targets)}", replicas, **changes)


def peer(hostname: str, job: dict[str, Any]) -> dict[str, Any]:
    return {"type": "peer", "hostname": hostname, "jobId": job["id"]}


def with_python(served: Served, **changes: Any) -> Served:
    served.settings = served.settings.model_copy(update={"system_folders": [PYTHON.parents[1]], **changes})
    return served


@pytest.fixture
async def networked(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(with_python(Served(tmp_path, Reports()))) as served:
        yield served
        await stop_all(served)


async def stop_all(served: Served) -> None:
    ids = [entry.name for entry in jobs_folder(served).iterdir()]
    await served.call("terminate", *({"id": name} | shell("true") | {"id": name} for name in ids))
    await eventually(lambda: left_over(served) == [])


def jobs_folder(served: Served) -> Path:
    return served.folder / "provider" / "jobs"


def left_over(served: Served) -> list[str]:
    """Everything on this machine that belongs to jobs of this provider."""
    found = [str(entry) for entry in jobs_folder(served).iterdir()]
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if str(jobs_folder(served)) in command:
            found.append(command)
    return found


def address_of(served: Served, job: dict[str, Any], rank: int = 0) -> str:
    holder = namespaces.find(jobs_folder(served) / job["id"] / "network" / str(rank))
    assert holder is not None
    return namespaces.address(holder)


def held_by(served: Served) -> list[tuple[Path, psutil.Process]]:
    return list(namespaces.holders(jobs_folder(served)))


async def listen(served: Served, *jobs: dict[str, Any]) -> None:
    """Start jobs that listen, and wait until they do."""
    await served.call("", *jobs)
    for job in jobs:
        for rank in range(job["specification"]["replicas"]):
            await eventually(lambda job=job, rank=rank: "listening" in written(served, job, rank), 40)  # type: ignore[misc]


def written(served: Served, job: dict[str, Any], rank: int) -> str:
    try:
        return served.output(job, f"stdout-{rank}.txt")
    except FileNotFoundError:
        return ""


async def answers(served: Served, job: dict[str, Any], rank: int = 0) -> dict[str, str]:
    """What a job that connects was answered, by target."""
    end = await eventually(lambda: served.reports.ended(job["id"]), 60)
    assert end is not None
    assert end.status == "The job has finished with exit code 0." or "rank" in (end.status or ""), end.status
    lines = served.output(job, f"stdout-{rank}.txt").splitlines()
    return dict(line.split(" ", 1) for line in lines)


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
async def test_several_peers_and_the_way_back(networked: Served) -> None:
    one, two = listening(), listening()
    await listen(networked, one, two)
    both = listening(resources=[peer("one", one), peer("two.example.org", two), peer("again", one)])
    await listen(networked, both)
    asked = connecting("one:5000", "TWO.example.org:5000", "again:5000", resources=both["specification"]["resources"])
    await networked.call("", asked)
    said = await answers(networked, asked)
    assert list(said.values()) == [f"{one['id']} 0", f"{two['id']} 0", f"{one['id']} 0"]


@separate
async def test_a_job_that_is_no_peer_is_not_reached(networked: Served) -> None:
    shared = listening()
    await listen(networked, shared)
    hidden = listening(resources=[peer("shared", shared)])
    await listen(networked, hidden)
    addresses = [address_of(networked, job) for job in (shared, hidden)]
    stranger = connecting("127.0.0.1:5000", *(f"{address}:5000" for address in addresses))
    # A peer of a peer is no peer.
    half = connecting(*(f"{address}:5000" for address in addresses), resources=[peer("shared", shared)])
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
    # Neither does the network hand on what is not meant for it, whatever this machine does.
    job = connecting(
        f"127.0.0.1:{port}",
        f"localhost:{port}",
        f"{socket.gethostname()}:{port}",
        f"{namespaces.WAY_OUT[2]}:{port}",
        before=f"{PYTHON} -c {shlex.quote(code)} 2>&1 | grep -q ConnectionRefused && echo abstract refused;"
        "echo forwards $(cat /proc/sys/net/ipv4/ip_forward); ",
    )
    await networked.call("", job)
    said = await answers(networked, job)
    here.close()
    assert said.pop("abstract") == "refused"
    assert said.pop("forwards") == "0"
    assert len(said) == 4
    assert set(said.values()) == {"refused"}


@separate
@separate
async def test_a_provider_with_a_thousand_open_files_makes_networks(networked: Served) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    taken: list[int] = []
    try:
        while not taken or taken[-1] < 1024:
            taken.append(os.open("/dev/null", os.O_RDONLY))
        job = shell("true")
        await networked.call("", job)
        assert (await networked.end_of(job)).state is JobState.SUCCESS
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.skipif(namespaces.way_out_obstacle() is not None, reason=f"{namespaces.way_out_obstacle()}")
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
        said = await answers(networked, job, rank)
        assert list(said.values()) == [f"{job['id']} {other}" for other in range(3)]


@separate
async def test_networks_survive_the_provider(tmp_path: Path) -> None:
    served = with_python(Served(tmp_path, Reports()))
    database = listening()
    first = connecting(
        "db:5000", before="until [ -e /work/go ]; do sleep 0.1; done; ", resources=[peer("db", database)]
    )
    async with serving(served):
        await listen(served, database)
        await served.call("", first)
        await eventually(lambda: len(served.processes_of(first)) > 1)
    async with serving(served):
        second = connecting("db:5000", resources=[peer("db", database)])
        await served.call("", second)
        (jobs_folder(served) / first["id"] / "work" / "go").touch()
        for job in (first, second):
            assert await answers(served, job) == {"db:5000": f"{database['id']} 0"}
        await stop_all(served)


@separate
async def test_nothing_is_left_of_jobs_that_ended_without_the_provider(tmp_path: Path) -> None:
    served = with_python(Served(tmp_path, Reports()))
    process, served.url = await asyncio.to_thread(serve_apart, served)
    database = listening(replicas=2)
    await listen(served, database)
    until = "echo up; until [ -e /work/go ]; do sleep 0.1; done; "
    asking = [connecting("db:5000", before=until, resources=[peer("db", database)]) for _ in range(4)]
    long = shell("echo up; sleep 300", replicas=2)
    failing, missing = shell(f"{until}exit 3", replicas=2), shell("no-such-program")
    await served.call("", *asking, failing, long, missing)
    ranks = [*((job, 0) for job in asking), *((job, rank) for job in (failing, long) for rank in (0, 1))]
    await eventually(lambda: all(written(served, job, rank) == "up\n" for job, rank in ranks), 40)
    log = jobs_folder(served).parent / "drives" / "home" / "Jobs" / missing["id"] / "stderr-0.txt"
    await eventually(lambda: log.exists() and not (jobs_folder(served) / missing["id"]).exists(), 40)
    process.kill()
    process.wait()
    for job in (*asking, failing):
        (jobs_folder(served) / job["id"] / "work" / "go").touch()
    # The networks of jobs that end without a provider end with them; those of the others are kept.
    living = {database["id"], long["id"]}
    await eventually(lambda: {folder.parent.parent.name for folder, _ in held_by(served)} == living, 40)
    held = {holder.pid for _, holder in held_by(served)}
    assert len(held) == 4
    # A crash may also have left a network whose job has ended and whose folder is gone.
    gone = jobs_folder(served) / "gone"
    held.add(namespaces.hold(gone / "network" / "0", min(held)))
    shutil.rmtree(gone)
    async with serving(served):
        await eventually(lambda: {job["id"] for job in asking} <= served.reports.taken.keys(), 40)
        await stop_all(served)
    assert held_by(served) == []
    # Neither is there a process that gave one of them its way out.
    await eventually(lambda: not [line for line in processes() if any(f"/proc/{one}/" in line for one in held)], 40)


def serve_apart(served: Served) -> tuple[subprocess.Popen[str], str]:
    """The provider as a process of its own, that can be killed. Nobody takes its reports."""
    settings = {
        "DATA_DIR": str(served.settings.data_dir),
        "PUBLIC_KEY_FILE": str(served.settings.public_key_file),
        "PORT": "0",
        "SYSTEM_FOLDERS": json.dumps([str(PYTHON.parents[1])]),
        "DRIVES": json.dumps({name: str(folder) for name, folder in served.settings.drives.items()}),
    }
    environment = {f"UCLOUD_PROVIDER_{name}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "provider", "--json"],
        env={**os.environ, **environment, "TEMPORAL_ADDRESS": "127.0.0.1:1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    return process, json.loads(line)["url"]


@separate
async def test_a_replica_whose_network_was_killed_before_it_began_does_not_begin(tmp_path: Path) -> None:
    served = with_python(Served(tmp_path, Reports()))
    job = Job.model_validate(shell("true"))
    networks = Networks(served.settings)
    await networks.begin(job)
    ((_, holder),) = held_by(served)
    holder.kill()
    await eventually(lambda: not held_by(served))
    with pytest.raises(NoNetwork):
        networks.entrance(job.id, 0)
    await networks.end(job.id)


@separate
async def test_a_peer_that_ends_is_refused_at_once(networked: Served) -> None:
    database = listening()
    await listen(networked, database)
    wait = "until [ -e /work/go ]; do sleep 0.1; done; "
    job = connecting("db:5000", before=wait, resources=[peer("db", database)])
    await networked.call("", job)
    await eventually(lambda: len(networked.processes_of(job)) > 1)
    await networked.call("terminate", database)
    await networked.end_of(database)
    (jobs_folder(networked) / job["id"] / "work" / "go").touch()
    assert await answers(networked, job) == {"db:5000": "refused"}


async def test_a_peer_that_does_not_run_here_is_refused(networked: Served) -> None:
    ended, foreign = shell("true"), shell("true")
    await networked.call("", ended)
    await networked.end_of(ended)
    for other in (ended, foreign):
        answer = await networked.call("", shell("true", resources=[peer("db", other)]))
        assert answer.status_code == 400
        assert answer.json()["why"] == f"The peer db (job {other['id']}) does not run at this provider."


@separate
async def test_a_peer_that_ended_before_the_start_ends_the_job(tmp_path: Path) -> None:
    served = with_python(Served(tmp_path, Reports()))
    job = shell("true", resources=[peer("db", {"id": new_job_id()})])
    ledger = Ledger(served.settings.data_dir / "provider.sqlite")
    await ledger.open()
    await ledger.take([Job.model_validate(job)])
    await ledger.close()
    async with serving(served):
        end = await served.end_of(job)
        assert end.state is JobState.FAILURE
        assert "The peer db (job" in (end.status or "")


async def test_on_the_machines_network_a_peer_is_at_its_loopback(tmp_path: Path) -> None:
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
        endpoint = await networks.reach(job["id"], rank, 5000)
        assert endpoint.socket is not None
        folders.add(endpoint.socket.parent)
        reader, writer = await asyncio.open_unix_connection(endpoint.socket)
        assert await asyncio.wait_for(reader.read(), 20) == f"{job['id']} {rank}".encode()
        writer.close()
    closed = await networks.reach(job["id"], 0, 5001)
    reader, writer = await asyncio.open_unix_connection(closed.socket)
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    (folder,) = folders
    assert folder.stat().st_mode & 0o077 == 0
    await networked.call("terminate", job)
    await networked.end_of(job)
    await eventually(lambda: not folder.exists() and not [p for p in processes() if str(folder) in p])


@separate
async def test_a_door_into_a_job_closes_with_it_also_without_the_provider(tmp_path: Path) -> None:
    served = with_python(Served(tmp_path, Reports()))
    job = listening()
    async with serving(served):
        await listen(served, job)
        endpoint = await Networks(served.settings).reach(job["id"], 0, 5000)
    assert endpoint.socket is not None
    folder = endpoint.socket.parent
    assert folder.is_dir()
    for process in served.processes_of(job):
        process.kill()
    await eventually(lambda: not folder.exists(), 40)


def processes() -> list[str]:
    return [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]


@pytest.mark.parametrize("choice", ["separate", "auto"])
def test_a_machine_that_cannot_separate_networks_says_so(tmp_path: Path, choice: str) -> None:
    served = Served(tmp_path, Reports())
    environment = {
        "PATH": "/nonexistent",  # there is no nsenter
        "UCLOUD_PROVIDER_DATA_DIR": str(served.settings.data_dir),
        "UCLOUD_PROVIDER_PUBLIC_KEY_FILE": str(served.settings.public_key_file),
        "UCLOUD_PROVIDER_PORT": "0",
        "UCLOUD_PROVIDER_NETWORK": choice,
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    command = [sys.executable, "-m", "provider"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = process.stdout.readline()
        process.terminate()
        said = process.stderr.read()
    if choice == "separate":
        assert (process.returncode, ready) == (3, "")
        assert "Jobs cannot have networks of their own on this machine: " in said
    else:
        assert "serves at" in ready
        assert "All jobs share this machine's network" in said


async def test_without_networks_of_their_own_a_port_is_at_the_loopback(tmp_path: Path) -> None:
    async with serving(with_python(Served(tmp_path, Reports()), network="host")) as served:
        job = listening()
        await listen(served, job)
        assert await Networks(served.settings).reach(job["id"], 0, 5000) == Endpoint(host="127.0.0.1", port=5000)
        await stop_all(served)


@separate
@pytest.mark.skipif(os.geteuid() != 0, reason="this is the run without root")
@pytest.mark.timeout(600)
async def test_all_this_holds_without_root() -> None:
    done = await asyncio.to_thread(run_without_root)
    assert done.returncode == 0, done.stdout[-5000:]


def run_without_root() -> subprocess.CompletedProcess[str]:
    """These tests again as another user, by the first interpreter that he may run."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        environment = {**os.environ, "HOME": folder, "PYTHONPATH": ":".join(filter(None, sys.path))}
        for python in (sys.executable, "/usr/bin/python3"):
            command = [*nobody, "sh", "-c", f"exec {python} -c 'import provider.server, tests'"]
            if subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0:
                options = ["-q", "-p", "no:cacheprovider", f"--basetemp={folder}/t"]
                command = [*nobody, python, "-m", "pytest", *options, __file__]
                return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    pytest.skip("another user may not run this installation")
