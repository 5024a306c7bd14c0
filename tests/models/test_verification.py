"""Verification of specifications: each rule is broken alone, and several at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import (
    application_document,
    resolved_product,
    specification_document,
    text,
    tool,
)
from ucloud_orchestrator.models import (
    Application,
    ComputeSupport,
    JobSpecification,
    Product,
    SimpleDuration,
)
from ucloud_orchestrator.models.verification import complete, verify

TOOL = tool(defaultMaxTime={"hours": 2})
PRODUCT = Product.model_validate(resolved_product())
SUPPORT = ComputeSupport.model_validate({"native": {"enabled": True, "peers": True}})
OPTIONS = [{"name": "Small one", "value": "s"}, {"name": "Large one", "value": "l"}]
APPLICATION = application_document(
    name="app",
    parameters={
        "must": {"type": "text"},
        "number": {"type": "integer", "min": 1, "max": 10, "optional": True},
        "decimal": {"type": "floating_point", "min": 0.5, "optional": True},
        "choice": {"type": "enumeration", "options": OPTIONS, "optional": True},
        "input": {"type": "input_file", "optional": True},
        "default": {"type": "integer", "defaultValue": 5},
    },
)
GOOD = specification_document("app", parameters={"must": text("x")})


def fields(
    application: dict[str, Any] = APPLICATION, support: ComputeSupport = SUPPORT, **changes: Any
) -> list[str]:
    parameters = GOOD["parameters"] | changes.pop("parameters", {})
    specification = JobSpecification.model_validate(GOOD | changes | {"parameters": parameters})
    findings = verify(
        specification, Application.model_validate(application), TOOL, PRODUCT, support
    )
    assert all(finding.message.endswith(".") for finding in findings)
    return [finding.field for finding in findings]


def test_a_valid_job_has_no_findings() -> None:
    assert fields() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unknown", {"type": "text", "value": "x"}),
        ("must", {"type": "integer", "value": 1}),
        ("number", {"type": "integer", "value": 0}),
        ("number", {"type": "integer", "value": 11}),
        ("number", {"type": "integer", "value": 10**30}),
        ("number", {"type": "text", "value": "5"}),
        ("decimal", {"type": "floating_point", "value": "0.4999999999999999999999"}),
        ("choice", {"type": "text", "value": "medium"}),
        ("input", {"type": "text", "value": "/home/x"}),
    ],
)
def test_an_invalid_parameter_has_a_finding(name: str, value: dict[str, Any]) -> None:
    assert fields(parameters={name: value}) == [f"parameters.{name}"]


@pytest.mark.parametrize("choice", ["s", "l", "Small one"])
def test_an_option_may_be_given_by_value_or_name(choice: str) -> None:
    assert fields(parameters={"choice": {"type": "text", "value": choice}}) == []


def test_a_missing_parameter_has_a_finding() -> None:
    specification = JobSpecification.model_validate(GOOD | {"parameters": {}})
    findings = verify(
        specification, Application.model_validate(APPLICATION), TOOL, PRODUCT, SUPPORT
    )
    assert [finding.message for finding in findings] == ["The parameter 'must' is missing."]


def test_replicas_need_a_multi_node_application() -> None:
    assert fields(replicas=2) == ["replicas"]
    assert fields(APPLICATION | {"allowMultiNode": True}, replicas=2) == []


def test_extra_mounts_need_an_application_that_allows_them() -> None:
    mount = [{"type": "file", "path": "/home/data"}]
    assert fields(resources=mount) == ["resources"]
    assert fields(APPLICATION | {"allowAdditionalMounts": True}, resources=mount) == []
    assert (
        fields(APPLICATION | {"applicationType": "WEB", "web": {"port": 80}}, resources=mount) == []
    )


def test_extra_peers_need_an_application_that_allows_them() -> None:
    peer = [{"type": "peer", "hostname": "db", "jobId": "1"}]
    assert fields(resources=peer) == []
    assert fields(APPLICATION | {"allowAdditionalPeers": False}, resources=peer) == ["resources"]


def test_peers_need_a_product_that_supports_them() -> None:
    peer = {"type": "peer", "hostname": "db", "jobId": "1"}
    without = ComputeSupport.model_validate({"native": {"enabled": True}})
    assert fields(support=without) == []
    assert fields(support=without, resources=[peer]) == ["product"]
    application = APPLICATION | {
        "parameters": {"must": {"type": "text"}, "database": {"type": "peer"}}
    }
    assert fields(application, without, parameters={"database": peer}) == ["product"]


def test_host_names_of_peers_are_unique() -> None:
    peers = [{"type": "peer", "hostname": "db", "jobId": job_id} for job_id in "12"]
    assert fields(resources=peers) == ["resources"]


def test_names_of_files_are_unique() -> None:
    application = APPLICATION | {"allowAdditionalMounts": True}
    parameter = {"input": {"type": "file", "path": "/home/a/data"}}
    assert fields(
        application, parameters=parameter, resources=[{"type": "file", "path": "/home/b/data"}]
    ) == ["resources"]


def test_a_plain_value_is_not_a_resource() -> None:
    assert fields(resources=[{"type": "text", "value": "x"}]) == ["resources[0]"]


def test_ssh_needs_an_application_with_ssh() -> None:
    assert fields(sshEnabled=True) == ["sshEnabled"]
    assert fields(APPLICATION | {"ssh": {"mode": "OPTIONAL"}}, sshEnabled=True) == []


def test_the_product_must_run_the_tool() -> None:
    assert fields(support=ComputeSupport.model_validate({"docker": {"enabled": True}})) == [
        "product"
    ]


def test_unknown_catalog_entries_have_findings() -> None:
    specification = JobSpecification.model_validate(GOOD)
    assert [finding.field for finding in verify(specification, None, None, None, None)] == [
        "application",
        "product",
    ]


def test_all_mistakes_are_found_at_once() -> None:
    findings = fields(
        support=ComputeSupport(),
        replicas=3,
        sshEnabled=True,
        parameters={
            "must": {"type": "boolean", "value": True},
            "unknown": {"type": "text", "value": "x"},
            "number": {"type": "integer", "value": 99},
            "decimal": {"type": "floating_point", "value": 0},
            "choice": {"type": "text", "value": "medium"},
            "input": {"type": "integer", "value": 1},
        },
        resources=[
            {"type": "text", "value": "x"},
            {"type": "file", "path": "/home/a/b"},
            {"type": "file", "path": "/home/c/b"},
            {"type": "peer", "hostname": "db", "jobId": "1"},
            {"type": "peer", "hostname": "db", "jobId": "2"},
        ],
    )
    assert len(findings) == 13


def test_defaults_are_filled_in() -> None:
    completed = complete(
        JobSpecification.model_validate(GOOD), Application.model_validate(APPLICATION), TOOL
    )
    assert completed.parameters["default"].to_wire() == {"type": "integer", "value": 5}
    assert completed.time_allocation == SimpleDuration(hours=2)
