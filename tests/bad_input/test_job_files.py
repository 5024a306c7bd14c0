"""Job files of every kind: what the command line says of them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from tests.bad_input.payloads import almost, json_values, tries
from ucloud_orchestrator.cli.job_file import InvalidJobFile
from ucloud_orchestrator.cli.job_files import read_file

pytestmark = pytest.mark.long

COMMAND = str(Path(sys.executable).parent / "ucloud-orchestrator")
TIMEOUT = 60
"""Seconds, on a machine that is busy; what is refused takes a tenth of one."""
JOB: dict[str, Any] = {
    "application": {"name": "a", "version": "1"},
    "product": {"id": "a", "category": "b", "provider": "c"},
    "name": "n",
    "replicas": 1,
    "allowDuplicateJob": True,
    "parameters": {
        "file": {"type": "file", "path": "/home/x", "readOnly": True},
        "number": {"type": "integer", "value": 1},
        "decimal": {"type": "floating_point", "value": 1.5},
        "text": {"type": "text", "value": "t"},
        "answer": {"type": "boolean", "value": True},
    },
    "resources": [{"type": "peer", "hostname": "h", "jobId": "1"}, {"type": "ingress", "id": "1"}],
    "timeAllocation": {"hours": 1, "minutes": 0, "seconds": 0},
}
HEAD = yaml.safe_dump({key: JOB[key] for key in ("application", "product")})
DIGITS = "9" * 10**6


BAD_FILES: dict[str, str | bytes] = {
    "ten megabytes of text": HEAD + "name: " + "a" * 10 * 1024 * 1024,
    "an alias in itself": "&a [*a]",
    "a merge of itself": "&a\n<<: *a\n",
    "a million digits": HEAD + "replicas: " + DIGITS,
    "a million digits in JSON": json.dumps(JOB).replace('"replicas": 1', f'"replicas": {DIGITS}'),
    "a million hexadecimal digits": HEAD + "replicas: 0x" + "f" * 10**6,
    "a million sexagesimal digits": HEAD + "replicas: 1" + ":59" * 300_000,
    "a million digits of a parameter": HEAD
    + f"parameters: {{n: {{type: floating_point, value: '{DIGITS}'}}}}",
    "an exponent of a billion": HEAD
    + "parameters: {n: {type: floating_point, value: '1e999999999'}}",
    "no number": HEAD + "replicas: !!int many",
    "no date": HEAD + "name: !!timestamp never",
    "a list as a key": "{[1]: 2}",
    "a Python object": "!!python/object/apply:os.system ['true']",
    "two documents": f"{HEAD}---\n{HEAD}",
    "half a character": HEAD + 'name: "\\ud800"',
    "no text": b"\xff\xfe\xfa",
    "a null character": b"application: \0",
    "nothing": "",
    "a name that is a path": HEAD + "name: ../../etc/passwd",
    "a name with a null character": HEAD + 'name: "a\\0b"',
    "a name with a newline": HEAD + 'name: "a\\nb"',
    "a long name": HEAD + "name: " + "a" * 10_000,
    "a field with control characters": HEAD + '"\\e[2J\\n": 1',
    "a long field": HEAD + "a" * 1000 + ": 1",
    "a path that leads out": HEAD + "resources: [{type: file, path: /home/../../etc/passwd}]",
    "a path with a null character": HEAD + 'resources: [{type: file, path: "/home/a\\0"}]',
}


def is_a_sentence(line: str) -> bool:
    return line.endswith((".", "…")) and line.isprintable() and 5 < len(line) < 700


def assert_refused_in_sentences(file: Path) -> None:
    with pytest.raises(InvalidJobFile) as refused:
        read_file(file)
    assert 0 < len(refused.value.sentences) <= 51
    assert all(map(is_a_sentence, refused.value.sentences)), refused.value.sentences


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused_in_sentences(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "job.yaml"
    content = BAD_FILES[kind]
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    begin = time.process_time()
    assert_refused_in_sentences(file)
    assert time.process_time() - begin < 5


def test_json_as_programs_write_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    wanted = JOB | {"parameters": {"text": {"type": "text", "value": "\U0001f600/ä"}}}
    for text in (json.dumps(wanted), json.dumps([wanted], ensure_ascii=False, indent="\t")):
        file.write_text(text)
        (specification,) = read_file(file)
        assert specification.to_wire()["parameters"] == wanted["parameters"]


def test_four_thousand_digits_are_a_number(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(HEAD + f"parameters: {{n: {{type: integer, value: {'9' * 4000}}}}}")
    assert read_file(file)[0].model_dump_json(by_alias=True).count("9") >= 4000


def test_any_document_is_jobs_or_refused_in_sentences(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"

    def check(text: str | bytes) -> None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        told: list[str] = []
        try:
            for specification in read_file(file):
                assert specification.model_dump_json(by_alias=True)
        except InvalidJobFile as error:
            told = error.sentences
        assert all(map(is_a_sentence, told)), told

    documents = almost(JOB) | st.lists(almost(JOB), max_size=3) | json_values
    written = documents.map(json.dumps) | documents.map(yaml.safe_dump)
    marks = st.text("{}[]&*!|>%@`#:,?-'\"<= \n\tab01.~", max_size=40)
    tags = st.sampled_from(
        ["int", "float", "bool", "null", "timestamp", "binary", "set", "omap", "pairs", "map", "x"]
    )
    tagged = st.builds(
        lambda tag, text: f"{HEAD}name: !!{tag} {text!r}",
        tags,
        st.text("0129:._-+ex{}[],a", max_size=8),
    )
    tries(
        written | marks | marks.map(lambda text: HEAD + text) | tagged | st.binary(max_size=60),
        check,
        240,
    )
