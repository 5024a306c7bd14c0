"""Build arguments from invocation and parameters: a table of cases."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests import builders
from ucloud_orchestrator.models import Application, AppParameterValue
from ucloud_orchestrator.models.command_line import build_command_line, build_environment

PARAMETERS: dict[str, Any] = {
    "v1": {"type": "text", "optional": True},
    "v2": {"type": "text", "optional": True},
    "area": {"type": "textarea", "optional": True},
    "int": {"type": "integer", "optional": True},
    "dec": {"type": "floating_point", "optional": True},
    "bool": {"type": "boolean", "optional": True},
    "yes": {"type": "boolean", "optional": True, "trueValue": "1", "falseValue": "0"},
    "enum": {
        "type": "enumeration",
        "optional": True,
        "options": [{"name": "Large", "value": "l"}, {"name": "s", "value": "s"}],
    },
    "file": {"type": "input_file", "optional": True},
    "dir": {"type": "input_directory", "optional": True},
    "peer": {"type": "peer", "optional": True},
    "lic": {"type": "license_server", "optional": True},
    "ing": {"type": "ingress", "optional": True},
    "ip": {"type": "network_ip", "optional": True},
    "d_text": {"type": "text", "defaultValue": "hello"},
    "d_int": {"type": "integer", "defaultValue": 27017},
    "d_wrapped": {
        "type": "enumeration",
        "defaultValue": {"type": "enumeration", "value": "Large"},
        "options": [{"name": "Large", "value": "l"}],
    },
    "d_bool": {"type": "boolean", "defaultValue": "true"},
}
LICENSES = {"license-1": "licenses.example.com:5000/key", "license-2": "licenses.example.com:5000"}


def application(invocation: list[Any], environment: dict[str, Any] | None = None) -> Application:
    return builders.application(
        invocation=invocation, environment=environment, parameters=PARAMETERS
    )


def values(given: dict[str, Any]) -> dict[str, AppParameterValue]:
    kinds = {
        "v": "text",
        "a": "text",
        "e": "text",
        "i": "integer",
        "d": "floating_point",
        "b": "boolean",
        "y": "boolean",
    }
    kinds |= {"d_text": "text"}
    return {
        name: AppParameterValue.model_validate(
            value
            if isinstance(value, dict)
            else {"type": kinds.get(name) or kinds[name[0]], "value": value}
        )
        for name, value in given.items()
    }


def var(*names: str, **affixes: Any) -> dict[str, Any]:
    return {"type": "var", "vars": list(names), **affixes}


FLAG = {"type": "flag", "var": "bool", "flag": "--example"}
ALL_FOUR = {
    "prefixGlobal": "--gpre",
    "prefixVariable": "--pre",
    "suffixVariable": "--suf",
    "suffixGlobal": "--gsuf",
}
TWO = {"v1": "v1", "v2": "v2"}
GLUED = {"isPrefixVariablePartOfArg": True}
LONG = "x" * 100_000

CASES: list[tuple[list[Any], dict[str, Any], list[str]]] = [
    (["foo", "bar", 42], {}, ["foo", "bar", "42"]),
    ([3.5], {}, ["3.5"]),
    ([" padded "], {}, [" padded "]),
    (["$HOME; rm -rf /"], {}, ["$HOME; rm -rf /"]),
    (["foo", var("v1", "v2")], TWO, ["foo", "v1", "v2"]),
    (["foo", var("v2", "v1")], TWO, ["foo", "v2", "v1"]),
    (["foo", var("v1", "v2", prefixGlobal="--f")], TWO, ["foo", "--f", "v1", "v2"]),
    (["foo", var("v1", "v2", prefixVariable="--f")], TWO, ["foo", "--f", "v1", "--f", "v2"]),
    (["foo", var("v1", "v2", prefixVariable="--f", **GLUED)], TWO, ["foo", "--fv1", "--fv2"]),
    (
        ["foo", var("v1", "v2", **ALL_FOUR)],
        TWO,
        ["foo", "--gpre", "--pre", "v1", "--suf", "--pre", "v2", "--suf", "--gsuf"],
    ),
    (["foo", var("v1", "v2", **ALL_FOUR)], {}, ["foo"]),
    (
        ["foo", var("v1", "v2", **ALL_FOUR)],
        {"v2": "x"},
        ["foo", "--gpre", "--pre", "x", "--suf", "--gsuf"],
    ),
    ([var("v1", suffixVariable=".txt", isSuffixVariablePartOfArg=True)], TWO, ["v1.txt"]),
    ([var("v1", suffixVariable=".txt")], TWO, ["v1", ".txt"]),
    ([var("v1", suffixGlobal="--end")], TWO, ["v1", "--end"]),
    ([var("v1", prefixGlobal="-c ")], TWO, ["-c", "v1"]),
    ([var("v1", prefixGlobal="   ")], TWO, ["v1"]),
    ([var("v1", prefixVariable=" -x ", **GLUED)], TWO, ["-xv1"]),
    ([var("v1")], {"v1": "Hello, World!"}, ["Hello, World!"]),
    ([var("int", prefixGlobal="--count")], {"int": 42}, ["--count", "42"]),
    (
        [
            var(
                "int",
                prefixGlobal="--entries",
                prefixVariable="--entry",
                suffixVariable="--next",
                **GLUED,
            )
        ],
        {"int": 42},
        ["--entries", "--entry42", "--next"],
    ),
    (
        [
            var(
                "int",
                "v1",
                prefixGlobal="--entries",
                prefixVariable="--entry",
                suffixVariable="--next",
            )
            | {"suffixGlobal": "--endOfEntries", "isSuffixVariablePartOfArg": True}
        ],
        {"int": 42, "v1": "hello"},
        ["--entries", "--entry", "42--next", "--entry", "hello--next", "--endOfEntries"],
    ),
    ([FLAG], {"bool": True}, ["--example"]),
    ([FLAG], {"bool": False}, []),
    ([FLAG], {}, []),
    ([FLAG | {"flag": "--hello world"}], {"bool": True}, ["--hello world"]),
    ([var("bool", prefixGlobal="--debug")], {"bool": True}, ["--debug", "true"]),
    ([var("bool")], {"bool": False}, ["false"]),
    ([var("yes")], {"yes": True}, ["1"]),
    ([var("yes")], {"yes": False}, ["0"]),
    ([var("int")], {"int": 0}, ["0"]),
    ([var("int")], {"int": -7}, ["-7"]),
    ([var("int")], {"int": 1_000_000}, ["1000000"]),
    ([var("int")], {"int": 10**40}, ["1" + "0" * 40]),
    ([var("dec")], {"dec": 0.1}, ["0.1"]),
    ([var("dec")], {"dec": "0.10000000000000000000000001"}, ["0.10000000000000000000000001"]),
    ([var("dec")], {"dec": 1e20}, ["1" + "0" * 20]),
    ([var("dec")], {"dec": "1e-7"}, ["0.0000001"]),
    ([var("enum")], {"enum": "Large"}, ["l"]),
    ([var("enum")], {"enum": "l"}, ["l"]),
    ([var("file")], {"file": {"type": "file", "path": "/home/a/data.csv"}}, ["/work/data.csv"]),
    ([var("dir")], {"dir": {"type": "file", "path": "/home/a/folder/"}}, ["/work/folder"]),
    ([var("file")], {"file": {"type": "file", "path": "/home/a b/$(x).csv"}}, ["/work/$(x).csv"]),
    ([var("peer")], {"peer": {"type": "peer", "hostname": "database", "jobId": "1"}}, ["database"]),
    (
        [var("lic")],
        {"lic": {"type": "license_server", "id": "license-1"}},
        ["licenses.example.com:5000/key"],
    ),
    (
        [var("lic")],
        {"lic": {"type": "license_server", "id": "license-2"}},
        ["licenses.example.com:5000"],
    ),
    ([var("lic")], {"lic": {"type": "license_server", "id": "unknown"}}, ["unknown"]),
    ([var("ing")], {"ing": {"type": "ingress", "id": "link-1"}}, ["link-1"]),
    ([var("ip")], {"ip": {"type": "network", "id": "ip-1"}}, ["ip-1"]),
    ([var("d_text")], {}, ["hello"]),
    ([var("d_text")], {"d_text": "mine"}, ["mine"]),
    ([var("d_int", prefixGlobal="-r")], {}, ["-r", "27017"]),
    ([var("d_wrapped")], {}, ["l"]),
    ([FLAG | {"var": "d_bool"}], {}, ["--example"]),
    ([{"type": "env", "var": "HOME"}, "x"], {}, ["x"]),
    ([{"type": "var", "vars": "v1"}], TWO, ["v1"]),
    *[
        ([var("v1")], {"v1": text}, [text])
        for text in (
            "",
            "two words",
            " spaces around ",
            "'single' \"double\"",
            "new\nline",
            "tab\there",
            "$HOME",
            "$(touch /tmp/x)",
            "`id`",
            "a;b|c&d>e<f",
            "--leading-dashes",
            "-",
            "back\\slash",
            "*?[]{}~!#",
            "Grüße 漢字 🙂",
            LONG,
        )
    ],
    ([var("area")], {"area": "line 1\nline 2"}, ["line 1\nline 2"]),
    ([var("v1", prefixVariable="--p=", **GLUED)], {"v1": "a b"}, ["--p=a b"]),
]


@pytest.mark.parametrize(("invocation", "given", "expected"), CASES, ids=range(len(CASES)))
def test_arguments_of_an_invocation(
    invocation: list[Any], given: dict[str, Any], expected: list[str]
) -> None:
    assert len(CASES) >= 60
    assert build_command_line(application(invocation), values(given), LICENSES) == expected


@pytest.mark.parametrize(("invocation", "given", "expected"), CASES, ids=range(len(CASES)))
def test_arguments_reach_a_process_unchanged(
    invocation: list[Any], given: dict[str, Any], expected: list[str]
) -> None:
    arguments = build_command_line(application(invocation), values(given), LICENSES)
    done = subprocess.run(["printf", "%s\\0", *arguments], capture_output=True, check=True)
    received = done.stdout.decode().split("\0")[:-1]
    assert received == (expected or [""])  # printf itself prints its format once without arguments


def test_environment_variables_join_their_arguments() -> None:
    app = application(
        ["x"],
        {
            "WORD": "plain",
            "TWO": var("v1", "v2"),
            "NONE": var("area"),
            "FLAG": FLAG,
            "HOME_OF_JOB": {"type": "env", "var": "HOME"},
            "MISSING": {"type": "env", "var": "NO_SUCH"},
        },
    )
    built = build_environment(
        app, values({"v1": "a b", "v2": "c", "bool": True}), {"HOME": "/work"}
    )
    assert built == {
        "WORD": "plain",
        "TWO": "a b c",
        "NONE": "",
        "FLAG": "--example",
        "HOME_OF_JOB": "/work",
        "MISSING": "",
    }
