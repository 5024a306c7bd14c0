"""Access of a job to its resources: for each rule a job that breaks only this rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests import builders
from ucloud_orchestrator.models import (
    Application,
    ErrorCode,
    Job,
    JobOwner,
    JobSpecification,
    JobState,
)
from ucloud_orchestrator.models.access import job_permissions, restrict_to_reader
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
    fields = {
        "allowPublicLink": True,
        "allowPublicIp": True,
        "parameters": {
            "file": {"type": "input_file", "optional": True},
            "folder": {"type": "input_directory", "optional": True},
            "license": {"type": "license_server", "optional": True},
        },
    }
    return builders.application(**fields | changes)


def specification(
    resources: list[dict[str, Any]] | None = None, **parameters: Any
) -> JobSpecification:
    return builders.specification(parameters=parameters, resources=resources or [])


def live_job(owner: JobOwner, state: JobState, *for_alice: Permission) -> Job:
    acl = [ResourceAclEntry(entity=UserEntity(username="alice"), permissions=list(for_alice))]
    return builders.job("p", state, owner=owner, acl=acl)


DRIVES = [
    Drive.model_validate({"id": "mine"} | OF_ALICE),
    Drive.model_validate(
        {"id": "shared", "provider": "local", "owner": {"user": "bob"}}
        | {"acl": [{"entity": {"type": "user", "username": "alice"}, "permissions": ["READ"]}]}
    ),
    Drive.model_validate({"id": "bobs", "provider": "local", "owner": {"user": "bob"}}),
    Drive.model_validate({"id": "far", "provider": "other", "owner": {"user": "alice"}}),
    Drive.model_validate({"id": "ocean", "acl": [GROUP_MAY_READ]} | OF_OCEAN),
]
LINKS = [
    PublicLink.model_validate({"id": "link", "domain": "a.example"} | OF_ALICE),
    PublicLink.model_validate({"id": "ocean-link", "domain": "o.example"} | OF_OCEAN),
    PublicLink.model_validate(
        {"id": "far-link", "domain": "f.example"} | OF_ALICE | {"provider": "other"}
    ),
]
ADDRESSES = [
    PublicIp.model_validate({"id": "ip", "address": "192.0.2.1"} | OF_ALICE),
    PublicIp.model_validate(
        {"id": "far-ip", "address": "192.0.2.2"} | OF_ALICE | {"provider": "other"}
    ),
]
LICENSES = [
    License.model_validate({"id": "license", "address": "l", "port": 1} | OF_ALICE),
    License.model_validate(
        {"id": "far-license", "address": "l", "port": 1} | OF_ALICE | {"provider": "other"}
    ),
    License.model_validate({"id": "ocean-license", "address": "l", "port": 1} | OF_OCEAN),
]


def references(memberships: list[Membership] | None = None) -> JobReferences:
    return JobReferences(
        memberships=memberships or [],
        drives={drive.id: drive for drive in DRIVES},
        links={link.id: link for link in LINKS},
        addresses={address.id: address for address in ADDRESSES},
        licenses={license_.id: license_ for license_ in LICENSES},
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
        file_kind=lambda drive, path: (
            FileKind.UNKNOWN
            if drive.id == "ocean"
            else FILES.get(path.rstrip("/"), FileKind.MISSING)
        ),
    )


def file(path: str, **more: Any) -> dict[str, Any]:
    return {"type": "file", "path": path} | more


def peer(job_id: str) -> dict[str, Any]:
    return {"type": "peer", "hostname": "database", "jobId": job_id}


def test_a_valid_job_has_no_findings() -> None:
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
    assert verify_resources(ALICE, job, application(), references()) == []


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
def test_each_broken_rule_has_one_finding(job: JobSpecification, field: str, sentence: str) -> None:
    findings = verify_resources(ALICE, job, application(), references())
    assert [(finding.field, finding.message) for finding in findings] == [(field, sentence)]


@pytest.mark.parametrize(
    ("resource", "word"),
    [({"type": "ingress", "id": "link"}, "public links"), ({"type": "network", "id": "ip"}, "IP")],
)
def test_links_and_addresses_need_an_application_that_allows_them(
    resource: dict[str, Any], word: str
) -> None:
    plain = application(allowPublicLink=False, allowPublicIp=False)
    findings = verify_resources(ALICE, specification([resource]), plain, references())
    assert len(findings) == 1
    assert word in findings[0].message


def test_only_members_start_jobs_in_a_project() -> None:
    findings = verify_resources(IN_OCEAN, specification(), application(), references())
    assert [(finding.code, finding.field) for finding in findings] == [
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
def test_project_resources_need_an_admin_or_an_entry(
    role: str, groups: list[str], may_use_link: bool, may_read: bool
) -> None:
    member = references(
        [Membership.model_validate({"project": "ocean", "role": role, "groups": groups})]
    )
    link = specification([{"type": "ingress", "id": "ocean-link"}])
    assert (verify_resources(IN_OCEAN, link, application(), member) == []) == may_use_link
    reading = specification(file=file("/ocean/file"))
    assert (verify_resources(IN_OCEAN, reading, application(), member) == []) == may_read


def test_a_personal_link_is_not_for_a_project() -> None:
    member = references([Membership.model_validate({"project": "ocean", "role": "PI"})])
    link = specification([{"type": "ingress", "id": "link"}])
    assert len(verify_resources(IN_OCEAN, link, application(), member)) == 1


def test_files_without_write_permission_are_read_only() -> None:
    job = specification([file("/shared/file")], file=file("/mine/file"))
    forced = with_forced_read_only(ALICE, job, references()).to_wire()
    assert forced["resources"][0]["readOnly"] is True
    assert forced["parameters"]["file"]["readOnly"] is False


def test_a_job_with_a_writable_file_needs_write_permission() -> None:
    written, read = (
        specification([file("/shared/file")]),
        specification([file("/shared/file", readOnly=True)]),
    )
    assert verify_resources(ALICE, written, application(), references()) == []
    assert [finding.message for finding in lost_access_findings(ALICE, written, references())] == [
        CANNOT.format("file /shared/file")
    ]
    assert lost_access_findings(ALICE, read, references()) == []


@pytest.mark.parametrize(
    ("job_id", "may_connect"), [("carols", False), ("shown", False), ("shared", True)]
)
def test_a_peer_needs_edit_permission(job_id: str, may_connect: bool) -> None:
    member = references([Membership.model_validate({"project": "ocean", "role": "USER"})])
    findings = verify_resources(IN_OCEAN, specification([peer(job_id)]), application(), member)
    assert (findings == []) == may_connect
    administrator = references([Membership.model_validate({"project": "ocean", "role": "ADMIN"})])
    assert (
        verify_resources(IN_OCEAN, specification([peer(job_id)]), application(), administrator)
        == []
    )


def job_of(owner: JobOwner, acl: list[Mapping[str, Any]] | None = None) -> Job:
    entries = [ResourceAclEntry.model_validate(entry) for entry in acl or []]
    return builders.job(owner=owner, acl=entries)


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
def test_job_permissions(
    username: str, memberships: list[Membership], job: Job, expected: str
) -> None:
    assert job_permissions(username, memberships, job) == {
        Permission(word) for word in expected.split()
    }


def test_only_an_admin_gets_the_access_list() -> None:
    job = job_of(ALICE, [BOB_MAY_EDIT])
    restricted = restrict_to_reader(job, "bob", []).to_wire()
    assert restricted["permissions"] == {"myself": ["READ", "EDIT"], "others": []}
    assert "acl" not in restricted
    assert len(restrict_to_reader(job, "alice", []).to_wire()["permissions"]["others"]) == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"members": []}, "exactly one"),
        ({"members": [{"username": "a", "role": "PI"}, {"username": "a"}]}, "twice"),
        ({"groups": {"g": ["stranger"]}}, "stranger"),
    ],
)
def test_an_invalid_project_is_rejected(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Project.model_validate({"id": "p", "members": [{"username": "a", "role": "PI"}]} | change)
