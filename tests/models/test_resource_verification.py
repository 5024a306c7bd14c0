"""Each rule about what a job may use has a job that breaks only it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ucloud_orchestrator.models import (
    Application,
    ErrorCode,
    Job,
    JobOwner,
    JobSpecification,
    JobState,
    JobStatus,
)
from ucloud_orchestrator.models.access import for_reader, job_permissions
from ucloud_orchestrator.models.job import Permission, ResourceAclEntry, UserEntity
from ucloud_orchestrator.models.resource_verification import (
    FileKind,
    JobReferences,
    lost_access_findings,
    verify_resources,
    with_forced_read_only,
)
from ucloud_orchestrator.models.workspace import (
    Drive,
    License,
    Membership,
    Project,
    PublicIp,
    PublicLink,
)

ALICE = JobOwner(created_by="alice")
IN_OCEAN = JobOwner(created_by="alice", project="ocean")
OF_ALICE = {"provider": "local", "owner": {"user": "alice"}}
OF_OCEAN = {"provider": "local", "owner": {"project": "ocean"}}
GROUP_MAY_READ = {
    "entity": {"type": "project_group", "projectId": "ocean", "group": "readers"},
    "permissions": ["READ"],
}
FILES = {
    "/mine/file": FileKind.FILE,
    "/mine/folder": FileKind.DIRECTORY,
    "/shared/file": FileKind.FILE,
}


def application(**changes: Any) -> Application:
    document = {
        "title": "t",
        "name": "a",
        "version": "1",
        "authors": [],
        "description": "",
        "tool": {"name": "t", "version": "1"},
        "invocation": ["a"],
        "allowPublicLink": True,
        "allowPublicIp": True,
        "parameters": {
            "file": {"type": "input_file", "optional": True},
            "folder": {"type": "input_directory", "optional": True},
            "license": {"type": "license_server", "optional": True},
        },
    }
    return Application.model_validate(document | changes)


def specification(
    resources: list[dict[str, Any]] | None = None, **parameters: Any
) -> JobSpecification:
    return JobSpecification.model_validate(
        {
            "application": {"name": "a", "version": "1"},
            "product": {"id": "p", "category": "c", "provider": "local"},
            "parameters": parameters,
            "resources": resources or [],
        }
    )


def live_job(owner: JobOwner, state: JobState, *for_alice: Permission) -> Job:
    acl = [ResourceAclEntry(entity=UserEntity(username="alice"), permissions=list(for_alice))]
    return Job(
        id="p",
        owner=owner,
        specification=specification(),
        status=JobStatus(state=state),
        created_at=1,
        acl=acl,
    )


def surroundings(memberships: list[Membership] | None = None) -> JobReferences:
    drives = [
        Drive.model_validate({"id": "mine"} | OF_ALICE),
        Drive.model_validate(
            {"id": "shared", "provider": "local", "owner": {"user": "bob"}}
            | {"acl": [{"entity": {"type": "user", "username": "alice"}, "permissions": ["READ"]}]}
        ),
        Drive.model_validate({"id": "bobs", "provider": "local", "owner": {"user": "bob"}}),
        Drive.model_validate({"id": "far", "provider": "other", "owner": {"user": "alice"}}),
        Drive.model_validate({"id": "ocean", "acl": [GROUP_MAY_READ]} | OF_OCEAN),
    ]
    links = [
        PublicLink.model_validate({"id": "link", "domain": "a.example"} | OF_ALICE),
        PublicLink.model_validate({"id": "ocean-link", "domain": "o.example"} | OF_OCEAN),
        PublicLink.model_validate(
            {"id": "far-link", "domain": "f.example"} | OF_ALICE | {"provider": "other"}
        ),
    ]
    addresses = [
        PublicIp.model_validate({"id": "ip", "address": "192.0.2.1"} | OF_ALICE),
        PublicIp.model_validate(
            {"id": "far-ip", "address": "192.0.2.2"} | OF_ALICE | {"provider": "other"}
        ),
    ]
    licenses = [
        License.model_validate({"id": "license", "address": "l", "port": 1} | OF_ALICE),
        License.model_validate(
            {"id": "far-license", "address": "l", "port": 1} | OF_ALICE | {"provider": "other"}
        ),
        License.model_validate({"id": "ocean-license", "address": "l", "port": 1} | OF_OCEAN),
    ]
    return JobReferences(
        memberships=memberships or [],
        drives={drive.id: drive for drive in drives},
        links={link.id: link for link in links},
        addresses={address.id: address for address in addresses},
        licenses={license_.id: license_ for license_ in licenses},
        peers={
            "running": live_job(ALICE, JobState.RUNNING),
            "queued": live_job(ALICE, JobState.IN_QUEUE),
            "foreign": live_job(IN_OCEAN, JobState.RUNNING),
            "carols": live_job(JobOwner(created_by="carol", project="ocean"), JobState.RUNNING),
            "shared": live_job(
                JobOwner(created_by="carol", project="ocean"), JobState.RUNNING, Permission.EDIT
            ),
            "shown": live_job(
                JobOwner(created_by="carol", project="ocean"), JobState.RUNNING, Permission.READ
            ),
        },
        kind_of=lambda drive, path: (
            FileKind.UNKNOWN
            if drive.id == "ocean"
            else FILES.get(path.rstrip("/"), FileKind.MISSING)
        ),
    )


def file(path: str, **more: Any) -> dict[str, Any]:
    return {"type": "file", "path": path} | more


def peer(job_id: str) -> dict[str, Any]:
    return {"type": "peer", "hostname": "database", "jobId": job_id}


def test_a_job_that_keeps_every_rule() -> None:
    job = specification(
        [
            {"type": "ingress", "id": "link"},
            {"type": "network", "id": "ip"},
            peer("running"),
            file("/shared/file"),
        ],
        file=file("/mine/file"),
        folder=file("/mine/folder/"),
        license={"type": "license_server", "id": "license"},
    )
    assert verify_resources(ALICE, job, application(), surroundings()) == []


CANNOT = "You cannot use the {}: it does not exist, or not for user alice."
BROKEN: list[tuple[JobSpecification, str, str]] = [
    (specification(file=file("/none/file")), "parameters.file", CANNOT.format("file /none/file")),
    (specification(file=file("/bobs/file")), "parameters.file", CANNOT.format("file /bobs/file")),
    (specification(file=file("/ocean/file")), "parameters.file", CANNOT.format("file /ocean/file")),
    (
        specification(file=file("/far/file")),
        "parameters.file",
        "The file /far/file is provided by other, and the job by local.",
    ),
    (
        specification(file=file("/mine/missing")),
        "parameters.file",
        "There is no file /mine/missing.",
    ),
    (
        specification(file=file("/mine/folder")),
        "parameters.file",
        "/mine/folder is a folder, and parameters.file takes a file.",
    ),
    (
        specification(folder=file("/mine/file")),
        "parameters.folder",
        "/mine/file is a file, and parameters.folder takes a folder.",
    ),
    (specification([file("/mine/missing")]), "resources[0]", "There is no file /mine/missing."),
    (specification([peer("none")]), "resources[0]", "There is no job none for the peer database."),
    (
        specification([peer("foreign")]),
        "resources[0]",
        "There is no job foreign for the peer database.",
    ),
    (
        specification([peer("queued")]),
        "resources[0]",
        "The peer database (job queued) is in state IN_QUEUE; it must be RUNNING.",
    ),
    (
        specification([{"type": "ingress", "id": "none"}]),
        "resources[0]",
        CANNOT.format("public link none"),
    ),
    (
        specification([{"type": "ingress", "id": "ocean-link"}]),
        "resources[0]",
        CANNOT.format("public link ocean-link"),
    ),
    (
        specification([{"type": "ingress", "id": "far-link"}]),
        "resources[0]",
        "The public link far-link is provided by other, and the job by local.",
    ),
    (
        specification([{"type": "network", "id": "none"}]),
        "resources[0]",
        CANNOT.format("public IP address none"),
    ),
    (
        specification([{"type": "network", "id": "far-ip"}]),
        "resources[0]",
        "The public IP address far-ip is provided by other, and the job by local.",
    ),
    (
        specification(license={"type": "license_server", "id": "none"}),
        "parameters.license",
        CANNOT.format("license none"),
    ),
    (
        specification(license={"type": "license_server", "id": "ocean-license"}),
        "parameters.license",
        CANNOT.format("license ocean-license"),
    ),
    (
        specification(license={"type": "license_server", "id": "far-license"}),
        "parameters.license",
        "The license far-license is provided by other, and the job by local.",
    ),
]


@pytest.mark.parametrize(
    ("job", "field", "sentence"), BROKEN, ids=[sentence for _, _, sentence in BROKEN]
)
def test_a_job_that_breaks_one_rule(job: JobSpecification, field: str, sentence: str) -> None:
    found = verify_resources(ALICE, job, application(), surroundings())
    assert [(finding.field, finding.message) for finding in found] == [(field, sentence)]


@pytest.mark.parametrize(
    ("resource", "word"),
    [({"type": "ingress", "id": "link"}, "public links"), ({"type": "network", "id": "ip"}, "IP")],
)
def test_links_and_addresses_only_where_the_application_takes_them(
    resource: dict[str, Any], word: str
) -> None:
    plain = application(allowPublicLink=False, allowPublicIp=False)
    found = verify_resources(ALICE, specification([resource]), plain, surroundings())
    assert len(found) == 1
    assert word in found[0].message


def test_a_stranger_has_no_jobs_in_a_project() -> None:
    found = verify_resources(IN_OCEAN, specification(), application(), surroundings())
    assert [(finding.code, finding.field) for finding in found] == [
        (ErrorCode.FORBIDDEN, "project")
    ]


@pytest.mark.parametrize(
    ("role", "groups", "may_use_link", "may_read"),
    [
        ("PI", [], True, True),
        ("ADMIN", [], True, True),
        ("USER", [], False, False),
        ("USER", ["readers"], False, True),
    ],
)
def test_what_a_project_has_is_for_its_admins_and_by_its_lists(
    role: str, groups: list[str], may_use_link: bool, may_read: bool
) -> None:
    around = surroundings(
        [Membership.model_validate({"project": "ocean", "role": role, "groups": groups})]
    )
    link = specification([{"type": "ingress", "id": "ocean-link"}])
    assert (verify_resources(IN_OCEAN, link, application(), around) == []) == may_use_link
    reading = specification(file=file("/ocean/file"))
    assert (verify_resources(IN_OCEAN, reading, application(), around) == []) == may_read


def test_a_personal_link_is_not_for_a_project() -> None:
    around = surroundings([Membership.model_validate({"project": "ocean", "role": "PI"})])
    link = specification([{"type": "ingress", "id": "link"}])
    assert len(verify_resources(IN_OCEAN, link, application(), around)) == 1


def test_files_are_read_only_where_their_owner_may_not_write() -> None:
    job = specification([file("/shared/file")], file=file("/mine/file"))
    forced = with_forced_read_only(ALICE, job, surroundings()).to_wire()
    assert forced["resources"][0]["readOnly"] is True
    assert forced["parameters"]["file"]["readOnly"] is False


def test_a_job_that_had_a_file_for_writing_must_be_able_to_write() -> None:
    written, read = (
        specification([file("/shared/file")]),
        specification([file("/shared/file", readOnly=True)]),
    )
    assert verify_resources(ALICE, written, application(), surroundings()) == []
    assert [one.message for one in lost_access_findings(ALICE, written, surroundings())] == [
        CANNOT.format("file /shared/file")
    ]
    assert lost_access_findings(ALICE, read, surroundings()) == []


@pytest.mark.parametrize(
    ("job_id", "may_connect"), [("carols", False), ("shown", False), ("shared", True)]
)
def test_a_peer_is_a_job_that_one_may_change(job_id: str, may_connect: bool) -> None:
    member = surroundings([Membership.model_validate({"project": "ocean", "role": "USER"})])
    found = verify_resources(IN_OCEAN, specification([peer(job_id)]), application(), member)
    assert (found == []) == may_connect
    administrator = surroundings([Membership.model_validate({"project": "ocean", "role": "ADMIN"})])
    assert (
        verify_resources(IN_OCEAN, specification([peer(job_id)]), application(), administrator)
        == []
    )


def job_of(owner: JobOwner, acl: list[Mapping[str, Any]] | None = None) -> Job:
    return Job(
        id="1",
        owner=owner,
        specification=specification(),
        status=JobStatus(state=JobState.RUNNING),
        created_at=1,
        acl=[ResourceAclEntry.model_validate(entry) for entry in acl or []],
    )


MEMBER = Membership.model_validate({"project": "ocean", "role": "USER", "groups": ["readers"]})
ADMIN = Membership.model_validate({"project": "ocean", "role": "ADMIN"})
BOB_MAY_EDIT = {"entity": {"type": "user", "username": "bob"}, "permissions": ["EDIT"]}


@pytest.mark.parametrize(
    ("username", "memberships", "job", "expected"),
    [
        ("alice", [], job_of(ALICE), "READ EDIT ADMIN"),
        ("bob", [], job_of(ALICE), ""),
        ("bob", [ADMIN], job_of(ALICE), ""),
        ("bob", [], job_of(ALICE, [BOB_MAY_EDIT]), "READ EDIT"),
        ("alice", [MEMBER], job_of(IN_OCEAN), "READ EDIT ADMIN"),
        ("alice", [], job_of(IN_OCEAN), ""),
        ("carol", [ADMIN], job_of(IN_OCEAN), "READ EDIT ADMIN"),
        ("dave", [MEMBER], job_of(IN_OCEAN), ""),
        ("dave", [MEMBER], job_of(IN_OCEAN, [GROUP_MAY_READ]), "READ"),
        ("dave", [], job_of(IN_OCEAN, [GROUP_MAY_READ]), ""),
    ],
)
def test_who_may_do_what_with_a_job(
    username: str, memberships: list[Membership], job: Job, expected: str
) -> None:
    assert job_permissions(username, memberships, job) == {
        Permission(word) for word in expected.split()
    }


def test_only_an_admin_reads_the_access_list() -> None:
    job = job_of(ALICE, [BOB_MAY_EDIT])
    seen = for_reader(job, "bob", []).to_wire()
    assert seen["permissions"] == {"myself": ["READ", "EDIT"], "others": []}
    assert "acl" not in seen
    assert len(for_reader(job, "alice", []).to_wire()["permissions"]["others"]) == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"members": []}, "exactly one"),
        ({"members": [{"username": "a", "role": "PI"}, {"username": "a"}]}, "twice"),
        ({"groups": {"g": ["stranger"]}}, "stranger"),
    ],
)
def test_a_project_is_sound(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Project.model_validate({"id": "p", "members": [{"username": "a", "role": "PI"}]} | change)
