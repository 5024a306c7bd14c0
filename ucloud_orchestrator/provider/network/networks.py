"""The networks of jobs: one per replica, wired to the job's other replicas and to rank 0 of its
peers.

All is read from `network` in the job's control folder and from the machine's processes, as with
replicas: a network outlives this process and is found again. `docs/operators/networks.md` tells
what is kept apart and what is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.parameter_values import PeerValue
from ucloud_orchestrator.provider.errors import NetworkNotFound
from ucloud_orchestrator.provider.network import etc_hosts, namespaces, port_forwarder
from ucloud_orchestrator.provider.network.endpoint import Endpoint
from ucloud_orchestrator.provider.sandbox import bubblewrap
from ucloud_orchestrator.provider.settings import NetworkChoice, ProviderSettings

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
FORWARDER_TIMEOUT = 20.0
"""Seconds that a forwarder may take to listen; it needs a tenth of one."""


@dataclass(frozen=True)
class NetworkAttachment:
    """How a replica comes into its network: words before its command, and its own files of
    `/etc`.
    """

    words: Sequence[str] = ()
    etc: Mapping[str, Path] = field(default_factory=dict)


class Networks:
    """Makes, wires and ends the networks of jobs that run on this machine.

    Raises `ValueError` if the settings ask for separate networks that this machine cannot have.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self._jobs = settings.data_dir.resolve() / "jobs"
        self.is_separate = _is_separate(settings.network)
        self._wiring = asyncio.Lock()
        self._forwarding = asyncio.Lock()
        self._last_holder: Path | None = None

    async def begin(self, job: Job) -> None:
        """Make the job's networks, unless they are there. Raises `NetworkNotFound` for a peer that
        is gone, `NetworkError`.

        May be repeated after a crash.
        """
        async with (
            self._wiring
        ):  # a namespace that others join or are wired to must not end meanwhile
            await asyncio.to_thread(self._begin, job)

    async def end(self, job_id: str) -> None:
        """End the job's networks and all that belongs to them. May be repeated."""
        async with self._wiring:
            await asyncio.to_thread(self._end, job_id)

    async def sweep(self, live: Collection[str]) -> None:
        """End what is left of jobs that are not live, whether their folders are still there or
        not.
        """
        async with self._wiring:
            await asyncio.to_thread(self._remove_leftovers, live)

    def addresses(self, job: Job) -> list[str]:
        """Where each rank is reached from the job's other replicas."""
        holders = [
            namespaces.last(self._rank_folder(job.id, rank))
            for rank in range(job.specification.replicas)
        ]
        return [LOOPBACK if holder is None else namespaces.address(holder) for holder in holders]

    def entrance(self, job_id: str, rank: int) -> NetworkAttachment:
        """How a replica comes into its network, once that was made.

        Raises `NetworkNotFound` if it has ended since.
        """
        folder = self._rank_folder(job_id, rank)
        etc = {name: folder / name for name in ("hosts", "resolv.conf") if (folder / name).exists()}
        if not (folder / "hold").exists():
            return NetworkAttachment((), etc)
        return NetworkAttachment(namespaces.entering(self._holder(job_id, rank)), etc)

    async def reach(self, job_id: str, rank: int, port: int) -> Endpoint:
        """Where a port of a replica is reached from this process. Raises `NetworkNotFound`.

        A connection is closed at once if nothing listens on the port yet.
        """
        folder = self._rank_folder(job_id, rank)
        if not folder.is_dir():
            raise NetworkNotFound(f"Rank {rank} of the job {job_id} has no network here.")
        if not (folder / "hold").exists():
            return Endpoint(host=LOOPBACK, port=port)
        async with self._forwarding:
            holder = self._holder(job_id, rank)
            return Endpoint(
                socket=await asyncio.to_thread(self._forward, job_id, rank, port, holder)
            )

    def _begin(self, job: Job) -> None:
        folder = self._folder(job.id)
        if (folder / "ready").exists():
            return
        ranks = range(job.specification.replicas)
        peers = _peers(job)
        if self.is_separate:
            names = {name: self._peer(job, peer) for name, peer in peers.items()}
            holders = [self._hold(job.id, rank) for rank in ranks]
            others = sorted(
                {holder for holder in names.values() if holder is not None} - {holders[0]}
            )
            _wire(holders, others)
            known = {
                name: namespaces.address(holders[0] if holder is None else holder)
                for name, holder in names.items()
            }
        else:
            known = dict.fromkeys(peers, LOOPBACK)
            if peers and not bubblewrap.is_available():
                log.warning(
                    "Without a sandbox the host names of the peers of job %s are unknown to it.",
                    job.id,
                )
        for rank in ranks:
            rank_folder = self._rank_folder(job.id, rank)
            rank_folder.mkdir(parents=True, exist_ok=True)
            own = namespaces.address(holders[rank]) if self.is_separate else None
            (rank_folder / "hosts").write_text(
                etc_hosts.render_hosts(etc_hosts.machine_lines(), own, known)
            )
            if self.is_separate and namespaces.internet_unavailable_reason() is None:
                (rank_folder / "resolv.conf").write_text(
                    etc_hosts.render_resolv_conf(str(namespaces.NAME_SERVER))
                )
        (folder / "ready").touch()

    def _hold(self, job_id: str, rank: int) -> int:
        last = namespaces.find(self._last_holder) if self._last_holder else None
        if last is None:  # after a start of this process, or when the last one has ended
            folders = self._jobs.glob("*/network/*/")
            last = next(
                (holder for one in folders if (holder := namespaces.find(one)) is not None), None
            )
        folder = self._rank_folder(job_id, rank)
        # The bridge between the replicas is in the network of rank 0.
        holder = namespaces.create(folder, last, self._rank_folder(job_id, 0) if rank else None)
        self._last_holder = folder
        # The replica's wrapper keeps the pipe open as long as it lives.
        control = self._jobs / job_id / f"replica-{rank}"
        control.mkdir(parents=True, exist_ok=True)
        (control / "hold").unlink(missing_ok=True)
        (control / "hold").symlink_to(folder / "hold")
        return holder

    def _holder(self, job_id: str, rank: int) -> int:
        holder = namespaces.find(self._rank_folder(job_id, rank))
        if holder is None:
            raise NetworkNotFound(f"The network of rank {rank} of the job {job_id} has ended.")
        return holder

    def _peer(self, job: Job, peer: PeerValue) -> int | None:
        """The holder of the peer's rank 0; None if the peer is the job itself."""
        if peer.job_id == job.id:
            return None
        holder = namespaces.find(self._rank_folder(peer.job_id, 0))
        if holder is None:
            raise NetworkNotFound(
                f"The peer {peer.hostname} (job {peer.job_id}) does not run at this provider any "
                "more."
            )
        return holder

    def _end(self, job_id: str) -> None:
        for folder in self._folder(job_id).glob("*/"):
            if (holder := namespaces.find(folder)) is not None:
                namespaces.kill(holder)
        self._remove_sockets(job_id)

    def _remove_leftovers(self, live: Collection[str]) -> None:
        for folder, holder in namespaces.holders(self._jobs):
            if folder.parent.parent.name not in live:
                namespaces.kill(holder.pid)
        for entry in self._jobs.iterdir() if self._jobs.is_dir() else ():
            if entry.name not in live:
                self._remove_sockets(entry.name)

    def _forward(self, job_id: str, rank: int, port: int, holder: int) -> Path:
        file = self._sockets(job_id) / f"{rank}-{port}"
        if _is_served(file):
            return file
        file.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-I",
            str(Path(port_forwarder.__file__)),
            str(file),
            str(holder),
            str(port),
        ]
        subprocess.run(
            ["setsid", "--fork", *namespaces.entering(holder), *command],  # noqa: S607 - util-linux, as for replicas
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        until = time.monotonic() + FORWARDER_TIMEOUT
        while not _is_served(file):
            if time.monotonic() > until:
                raise NetworkNotFound(
                    f"The port {port} of rank {rank} of the job {job_id} could not be opened."
                )
            time.sleep(0.02)
        return file

    def _sockets(self, job_id: str) -> Path:
        """The folder of the job's sockets: elsewhere, since their paths may have only 108 bytes."""
        link = self._folder(job_id) / "sockets"
        if not link.is_symlink():
            # The link first: what is made after it is found and deleted after a crash.
            link.symlink_to(Path(tempfile.gettempdir()) / f"ucloud-{secrets.token_hex(8)}")
        folder = link.readlink()
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or folder.is_symlink():
            raise NetworkNotFound(f"The folder {folder} belongs to somebody else.")
        return folder

    def _remove_sockets(self, job_id: str) -> None:
        link = self._folder(job_id) / "sockets"
        if link.is_symlink():
            shutil.rmtree(link.readlink(), ignore_errors=True)

    def _folder(self, job_id: str) -> Path:
        return self._jobs / job_id / "network"

    def _rank_folder(self, job_id: str, rank: int) -> Path:
        return self._folder(job_id) / str(rank)


def peers_of(job: Job) -> list[PeerValue]:
    """The peers that the job names, in its parameters and its resources."""
    values = (*job.specification.parameters.values(), *job.specification.resources)
    return [value for value in values if isinstance(value, PeerValue)]


def _peers(job: Job) -> dict[str, PeerValue]:
    return {peer.hostname: peer for peer in peers_of(job)}


def _wire(holders: Sequence[int], peers: Sequence[int]) -> None:
    """Wire the namespaces of a job with each other by a bridge in that of rank 0, and each with
    those of its peers.

    A namespace has one address and a route to each address that it may reach, no more: what has no
    route to another job cannot send anything there.
    """
    first, *more = holders
    if more:
        namespaces.remove_links(
            first, ["mates", *(f"rank{rank}" for rank in range(1, len(holders)))]
        )
        lines = ["link add mates type bridge", "link set mates up"]
        for rank, holder in enumerate(more, 1):
            lines += [f"link add rank{rank} type veth peer name mates netns {holder}"]
            lines += [f"link set rank{rank} master mates up", *_routes("mates", first, [holder])]
        namespaces.configure(first, lines)
    for holder in more:
        others = [other for other in holders if other != holder]
        namespaces.configure(holder, ["link set mates up", *_routes("mates", holder, others)])
    for peer in peers:
        namespaces.remove_links(peer, [f"job{holder}" for holder in holders])
        back = []
        for holder in holders:
            link = f"peer{peer}"
            lines = [
                f"link add {link} type veth peer name job{holder} netns {peer}",
                f"link set {link} up",
            ]
            # After the peer's end there is an answer at once, instead of a packet that goes astray.
            lines += [
                *_routes(link, holder, [peer]),
                f"route replace unreachable {namespaces.address(peer)} metric 9999",
            ]
            namespaces.configure(holder, lines)
            back += [f"link set job{holder} up", *_routes(f"job{holder}", peer, [holder])]
        namespaces.configure(peer, back)


def _routes(link: str, source: int, targets: Sequence[int]) -> list[str]:
    own = namespaces.address(source)
    return [
        f"route replace {namespaces.address(target)}/32 dev {link} src {own}" for target in targets
    ]


def _is_served(file: Path) -> bool:
    """Whether a forwarder listens at the socket; asked without connecting, which the job's program
    would see.
    """
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        forwarder_id = int(file.with_name(f"{file.name}.pid").read_text())
        return file.exists() and str(file) in psutil.Process(forwarder_id).cmdline()
    return False


def _is_separate(choice: NetworkChoice) -> bool:
    if choice == "host":
        return False
    obstacle = namespaces.unavailable_reason()
    if obstacle is not None and choice == "separate":
        raise ValueError(f"Jobs cannot have networks of their own on this machine: {obstacle}")
    if obstacle is not None:
        log.warning(
            "All jobs share this machine's network and reach each other and its own services: %s",
            obstacle,
        )
    elif (lacking := namespaces.internet_unavailable_reason()) is not None:
        log.warning("Jobs reach nothing outside of their networks: %s", lacking)
    return obstacle is None
