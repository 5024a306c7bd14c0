"""The networks of jobs: a namespace per replica, linked to the job's other replicas and its peers.

A peer is reached at its rank 0. All state is in the folder `network` of the job's control folder
and in the machine's processes, so networks outlive this process. `docs/operators/networks.md` says
what is isolated and what is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
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
"""Seconds until a port forwarder must listen; it needs a tenth of one."""


@dataclass(frozen=True)
class NetworkAttachment:
    """The words before a replica's command that join its network, and its files of `/etc`."""

    words: Sequence[str] = ()
    etc: Mapping[str, Path] = field(default_factory=dict)


class Networks:
    """Create, link and remove the networks of jobs that run on this machine.

    Raises `ValueError` if the settings require separate networks that this machine cannot have.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self._jobs = settings.data_dir.resolve() / "jobs"
        self.is_separate = _is_separate(settings.network)
        self._namespaces_lock = asyncio.Lock()
        """Held while a namespace is joined or linked: none may be removed then."""
        self._forwarders_lock = asyncio.Lock()
        self._last_holder: Path | None = None

    async def create(self, job: Job) -> None:
        """Create the job's networks. Idempotent.

        Raises `NetworkNotFound` if a peer has ended, and `NetworkError`.
        """
        async with self._namespaces_lock:
            await asyncio.to_thread(self._create, job)

    async def remove(self, job_id: str) -> None:
        """Remove the job's networks, with the processes that belong to them. Idempotent."""
        async with self._namespaces_lock:
            await asyncio.to_thread(self._remove, job_id)

    async def remove_leftovers(self, live: Collection[str]) -> None:
        """Remove the networks of all jobs but the live ones, also if their folders are gone."""
        async with self._namespaces_lock:
            await asyncio.to_thread(self._remove_leftovers, live)

    def addresses(self, job: Job) -> list[str]:
        """Return the address of each rank, as the job's other replicas use it."""
        holders = [
            namespaces.last_holder(self._rank_folder(job.id, rank))
            for rank in range(job.specification.replicas)
        ]
        return [LOOPBACK if holder is None else namespaces.address(holder) for holder in holders]

    def attachment(self, job_id: str, rank: int) -> NetworkAttachment:
        """Return how a replica joins its network. Raises `NetworkNotFound` if that has ended."""
        folder = self._rank_folder(job_id, rank)
        etc = {name: folder / name for name in ("hosts", "resolv.conf") if (folder / name).exists()}
        if not (folder / "hold").exists():
            return NetworkAttachment((), etc)
        return NetworkAttachment(namespaces.nsenter_prefix(self._holder(job_id, rank)), etc)

    async def endpoint(self, job_id: str, rank: int, port: int) -> Endpoint:
        """Return the endpoint of a replica's port for this process. Raises `NetworkNotFound`.

        A connection is closed at once if nothing listens on the port yet.
        """
        folder = self._rank_folder(job_id, rank)
        if not folder.is_dir():
            raise NetworkNotFound(f"Rank {rank} of the job {job_id} has no network here.")
        if not (folder / "hold").exists():
            return Endpoint(host=LOOPBACK, port=port)
        async with self._forwarders_lock:
            holder = self._holder(job_id, rank)
            socket = await asyncio.to_thread(self._forward, job_id, rank, port, holder)
            return Endpoint(socket=socket)

    def _create(self, job: Job) -> None:
        folder = self._folder(job.id)
        if (folder / "ready").exists():
            return
        if self.is_separate:
            self._create_separate(job)
        else:
            self._share_host_network(job)
        (folder / "ready").touch()

    def _create_separate(self, job: Job) -> None:
        peers = {peer.hostname: self._peer_holder(job, peer) for peer in peers_of(job)}
        holders = [
            self._create_namespace(job.id, rank) for rank in range(job.specification.replicas)
        ]
        others = {holder for holder in peers.values() if holder is not None} - {holders[0]}
        _link_replicas(holders)
        for other in sorted(others):
            _link_peer(holders, other)
        addresses = {
            name: namespaces.address(holders[0] if holder is None else holder)
            for name, holder in peers.items()
        }
        for rank, holder in enumerate(holders):
            self._write_hosts(job.id, rank, namespaces.address(holder), addresses)
            if namespaces.internet_unavailable_reason() is None:
                resolv_conf = etc_hosts.render_resolv_conf(str(namespaces.NAME_SERVER))
                (self._rank_folder(job.id, rank) / "resolv.conf").write_text(resolv_conf)

    def _share_host_network(self, job: Job) -> None:
        addresses = {peer.hostname: LOOPBACK for peer in peers_of(job)}
        if addresses and not bubblewrap.is_available():
            log.warning(
                "Without a sandbox job %s cannot resolve the host names of its peers.", job.id
            )
        for rank in range(job.specification.replicas):
            self._write_hosts(job.id, rank, None, addresses)

    def _write_hosts(
        self, job_id: str, rank: int, own: str | None, peers: Mapping[str, str]
    ) -> None:
        folder = self._rank_folder(job_id, rank)
        folder.mkdir(parents=True, exist_ok=True)
        text = etc_hosts.render_hosts(etc_hosts.machine_lines(), own, peers)
        (folder / "hosts").write_text(text)

    def _create_namespace(self, job_id: str, rank: int) -> int:
        folder = self._rank_folder(job_id, rank)
        # The bridge between the replicas is in the network of rank 0.
        outlived_by = self._rank_folder(job_id, 0) if rank else None
        holder = namespaces.create(folder, self._any_holder(), outlived_by)
        self._last_holder = folder
        # The replica's wrapper keeps the pipe open as long as it lives.
        control = self._jobs / job_id / f"replica-{rank}"
        control.mkdir(parents=True, exist_ok=True)
        (control / "hold").unlink(missing_ok=True)
        (control / "hold").symlink_to(folder / "hold")
        return holder

    def _any_holder(self) -> int | None:
        """Return a living holder, whose user namespace a new namespace can join."""
        latest = [self._last_holder] if self._last_holder is not None else []
        folders = itertools.chain(latest, self._jobs.glob("*/network/*/"))
        return next((holder for one in folders if (holder := namespaces.find(one))), None)

    def _holder(self, job_id: str, rank: int) -> int:
        holder = namespaces.find(self._rank_folder(job_id, rank))
        if holder is None:
            raise NetworkNotFound(f"The network of rank {rank} of the job {job_id} has ended.")
        return holder

    def _peer_holder(self, job: Job, peer: PeerValue) -> int | None:
        """Return the holder of the peer's rank 0; None if the peer is the job itself."""
        if peer.job_id == job.id:
            return None
        holder = namespaces.find(self._rank_folder(peer.job_id, 0))
        if holder is None:
            raise NetworkNotFound(
                f"The peer {peer.hostname} (job {peer.job_id}) does not run at this provider any "
                "more."
            )
        return holder

    def _remove(self, job_id: str) -> None:
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
        command = ["setsid", "--fork", *namespaces.nsenter_prefix(holder), *command]
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        deadline = time.monotonic() + FORWARDER_TIMEOUT
        while not _is_served(file):
            if time.monotonic() > deadline:
                raise NetworkNotFound(
                    f"The port {port} of rank {rank} of the job {job_id} could not be opened."
                )
            time.sleep(0.02)
        return file

    def _sockets(self, job_id: str) -> Path:
        """Return the folder of the job's sockets, in `/tmp`: their paths have 108 bytes at most."""
        link = self._folder(job_id) / "sockets"
        if not link.is_symlink():
            # The link comes first, so that the folder is found and deleted after a crash.
            link.symlink_to(Path(tempfile.gettempdir()) / f"ucloud-{secrets.token_hex(8)}")
        folder = link.readlink()
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or folder.is_symlink():
            raise NetworkNotFound(f"The folder {folder} belongs to another user.")
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
    values = (*job.specification.parameters.values(), *job.specification.resources)
    return [value for value in values if isinstance(value, PeerValue)]


def _link_replicas(holders: Sequence[int]) -> None:
    """Link the namespaces of a job by a bridge in that of rank 0.

    A namespace has one address, and a route to each address that it may reach. Without a route
    nothing can be sent to another job.
    """
    first, *more = holders
    if not more:
        return
    namespaces.remove_links(first, ["mates", *(f"rank{rank}" for rank in range(1, len(holders)))])
    lines = ["link add mates type bridge", "link set mates up"]
    for rank, holder in enumerate(more, 1):
        lines += [f"link add rank{rank} type veth peer name mates netns {holder}"]
        lines += [f"link set rank{rank} master mates up", *_routes("mates", first, [holder])]
    namespaces.configure(first, lines)
    for holder in more:
        others = [other for other in holders if other != holder]
        namespaces.configure(holder, ["link set mates up", *_routes("mates", holder, others)])


def _link_peer(holders: Sequence[int], peer: int) -> None:
    """Link each namespace of a job with that of a peer's rank 0."""
    namespaces.remove_links(peer, [f"job{holder}" for holder in holders])
    link, back = f"peer{peer}", []
    for holder in holders:
        lines = [
            f"link add {link} type veth peer name job{holder} netns {peer}",
            f"link set {link} up",
            *_routes(link, holder, [peer]),
            # After the peer's end a connection fails at once instead of timing out.
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
    """Check for a forwarder without connecting, which the job's program would see."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        forwarder_id = int(file.with_name(f"{file.name}.pid").read_text())
        return file.exists() and str(file) in psutil.Process(forwarder_id).cmdline()
    return False


def _is_separate(choice: NetworkChoice) -> bool:
    if choice == "host":
        return False
    reason = namespaces.unavailable_reason()
    if reason is not None and choice == "separate":
        raise ValueError(f"Jobs cannot have networks of their own on this machine: {reason}")
    if reason is not None:
        log.warning(
            "All jobs share this machine's network and reach each other and its own services: %s",
            reason,
        )
    elif (no_internet := namespaces.internet_unavailable_reason()) is not None:
        log.warning("Jobs reach nothing outside of their networks: %s", no_internet)
    return reason is None
