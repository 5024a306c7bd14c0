"""Load and reload catalogs: valid documents are there, mistakes have a file and a line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ucloud_orchestrator.catalog import ReloadingCatalog, Severity, load, reloading
from ucloud_orchestrator.models import NameAndVersion

TOOL = """\
tool: v1
title: T
name: t
version: 1
authors: [a]
backend: UDOCKER
container: registry.example.com/t:1
defaultMaxTime: {hours: 1, minutes: 0, seconds: 0}
"""
APPLICATION = """\
application: v1
title: A
name: a
version: 20.04
authors: [a]
description: d
tool: {name: t, version: 1}
applicationType: BATCH
invocation: [a, 20.04, 1000000000, on, {type: var, vars: p, prefixGlobal: '-c '}]
parameters:
  p: {type: integer, min: 1, max: 5, defaultValue: 3}
"""
RESOURCES = """
provider: v1
id: local
address: http://127.0.0.1:1
---
project: v1
id: ocean
members: [{username: alice, role: PI}, {username: bob}]
groups: {readers: [bob]}
---
drive: v1
id: files
provider: local
owner: {project: nowhere}
---
publicLink: v1
id: link
domain: a.example.com
provider: elsewhere
owner: {user: alice}
---
license: v1
id: solver
address: a.example.com
port: 1
key: a-secret-key
provider: local
---
publicIp: v1
id: ip
address: 192.0.2.1
provider: local
owner: {user: alice, project: ocean}
"""


def problems(folder: Path, text: str) -> list[tuple[int, str]]:
    (folder / "c.yaml").write_text(text)
    return [(problem.line, problem.message) for problem in load(folder).problems]


def test_numbers_keep_the_text_that_was_written(tmp_path: Path) -> None:
    assert problems(tmp_path, TOOL + "---\n" + APPLICATION) == []
    application = load(tmp_path).application(NameAndVersion(name="a", version="20.04"))
    assert application is not None
    words = [item.word for item in application.invocation if item.type == "word"]
    assert words == ["a", "20.04", "1000000000", "on"]


def test_the_backend_udocker_is_docker(tmp_path: Path) -> None:
    problems(tmp_path, TOOL)
    tool = load(tmp_path).tool(NameAndVersion(name="t", version="1"))
    assert tool is not None
    assert tool.backend == "DOCKER"


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("backend: UDOCKER", "backend: ROCKET"), 6, "backend"),
        (("container: registry.example.com/t:1\n", ""), 6, "a DOCKER tool needs"),
        (("minutes: 0", "minutes: 99"), 8, "defaultMaxTime.minutes"),
        (("vars: p", "vars: q"), 18, "there is no parameter 'q'"),
        (
            ("{name: t, version: 1}", "{name: missing, version: 1}"),
            16,
            "there is no tool missing@1",
        ),
        (("applicationType: BATCH", "applicationType: WEB"), 17, "needs 'web'"),
        (("min: 1, max: 5", "min: 6, max: 5"), 20, "min above its max"),
        (("defaultValue: 3", "defaultValue: three"), 20, "cannot be used"),
        (
            (
                "type: integer, min: 1, max: 5, defaultValue: 3",
                "type: input_file, defaultValue: /x",
            ),
            20,
            "cannot have a default",
        ),
        (("title: A", "title: A\ntitle: B"), 12, "second time"),
        (("application: v1", "nonsense: v1"), 10, "does not say what it is"),
        (("authors: [a]\ndescription", "description"), 10, "authors is missing"),
    ],
)
def test_a_mistake_has_its_line(
    tmp_path: Path, change: tuple[str, str], line: int, message: str
) -> None:
    mistakes = problems(tmp_path, (TOOL + "---\n" + APPLICATION).replace(*change))
    assert mistakes[0][0] == line, mistakes
    assert message in mistakes[0][1]


def test_invalid_yaml_leaves_the_other_files(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [1, 2\nb: }")
    assert len(problems(tmp_path, TOOL)) == 1
    assert load(tmp_path).tool(NameAndVersion(name="t", version="1")) is not None


def test_the_same_name_twice_is_a_mistake(tmp_path: Path) -> None:
    assert "stands already" in problems(tmp_path, TOOL + "---\n" + TOOL)[0][1]


def test_an_unknown_key_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(TOOL + "supportedProviders: [x]\n")
    catalog = load(tmp_path)
    assert [problem.severity for problem in catalog.problems] == [Severity.WARNING]
    assert catalog.tool(NameAndVersion(name="t", version="1")) is not None


def test_reload_applies_changes_and_keeps_the_last_valid_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "CHECK_INTERVAL", 0.0)
    file = tmp_path / "c.yaml"
    file.write_text(TOOL)
    catalog = ReloadingCatalog(tmp_path)
    first, second = NameAndVersion(name="t", version="1"), NameAndVersion(name="t", version="2")
    assert catalog.current.tool(first) is not None
    file.write_text(TOOL.replace("version: 1", "version: 2"))
    assert catalog.current.tool(second) is not None
    file.write_text("tool: v1\nname: [")
    assert catalog.current.tool(second) is not None
    os.unlink(file)
    assert catalog.current.tool(second) is None


def test_the_examples_have_no_problems() -> None:
    assert load(Path(__file__).parents[2] / "examples" / "catalog").problems == []


def test_resources_refer_to_existing_providers_and_projects(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text(RESOURCES)
    catalog = load(tmp_path)
    assert {(problem.line, problem.message) for problem in catalog.problems} == {
        (14, "there is no project nowhere."),
        (19, "there is no provider elsewhere."),
        (22, "it needs an owner, or permissions that are public."),
        (33, "owner: needs either a user or a project."),
    }
    assert "a-secret-key" not in repr(catalog)
    (membership,) = catalog.memberships("bob")
    assert (membership.project, membership.role, membership.groups) == (
        "ocean",
        "USER",
        ["readers"],
    )
    assert catalog.memberships("mallory") == []


@pytest.mark.parametrize("drive", ["..", ".", "a/b", "a\nb", "a\0"])
def test_a_drive_id_is_not_a_path(tmp_path: Path, drive: str) -> None:
    document = {"drive": "v1", "id": drive, "provider": "local", "owner": {"user": "a"}}
    provider = "provider: v1\nid: local\naddress: http://127.0.0.1:1\n"
    ((_, message),) = problems(tmp_path, f"{provider}---\n{json.dumps(document)}\n")
    assert message.startswith("id: ")
