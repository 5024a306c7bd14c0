"""Read valid and invalid job files: each mistake is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from tests.bad_input.payloads import almost, json_values, tries
from tests.builders import specification_document
from ucloud_orchestrator.cli.job_file import InvalidJobFile, read_job_file

JOB: dict[str, Any] = specification_document() | {
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
    "an alias in itself": "&a [*a]",
    "a million digits": HEAD + "replicas: " + DIGITS,
    "a million digits in JSON": json.dumps(JOB).replace('"replicas": 1', f'"replicas": {DIGITS}'),
    "a million hexadecimal digits": HEAD + "replicas: 0x" + "f" * 10**6,
    "a million digits of a parameter": HEAD
    + f"parameters: {{n: {{type: floating_point, value: '{DIGITS}'}}}}",
    "an exponent of a billion": HEAD
    + "parameters: {n: {type: floating_point, value: '1e999999999'}}",
    "no number": HEAD + "replicas: !!int many",
    "no date": HEAD + "name: 2024-13-01",
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


SENTENCES = {
    "application: {name: a\n": "at line 2: this is not YAML: did not find expected ',' or '}'.",
    f"{HEAD}name: [\n": "at line 9: this is not YAML: did not find expected node content.",
    f"{HEAD}---\n{HEAD}": "it has 2 documents; several jobs are one list.",
    f"{HEAD}name: 2024-13-01": "month must be in 1..12.",
}


def is_a_sentence(line: str) -> bool:
    return line.endswith((".", "…")) and line.isprintable() and 5 < len(line) < 700


def sentences(file: Path, content: str | bytes) -> list[str]:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidJobFile) as rejected:
        read_job_file(file)
    return rejected.value.sentences


@pytest.mark.parametrize("kind", BAD_FILES)
def test_an_invalid_file_is_rejected_in_sentences(tmp_path: Path, kind: str) -> None:
    found = sentences(tmp_path / "job.yaml", BAD_FILES[kind])
    assert 0 < len(found) <= 51
    assert all(map(is_a_sentence, found)), found


@pytest.mark.parametrize(("content", "reason"), SENTENCES.items())
def test_a_file_that_cannot_be_parsed_gets_one_reason(
    tmp_path: Path, content: str, reason: str
) -> None:
    file = tmp_path / "job.yaml"
    (sentence,) = sentences(file, content)
    assert sentence.removeprefix(f"The file {file} cannot be read").lstrip(": ") == reason


def test_a_number_where_text_is_needed_is_rejected_and_not_rounded(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    unquoted = HEAD.replace("version: '1'", "version: 20.10")
    (sentence,) = sentences(file, unquoted)
    assert sentence.startswith("application.version: input should be a valid string")
    file.write_text(HEAD.replace("version: '1'", "version: '20.10'"))
    assert read_job_file(file)[0].application.version == "20.10"


def test_json_as_programs_write_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    job = JOB | {"parameters": {"text": {"type": "text", "value": "\U0001f600/ä"}}}
    for text in (json.dumps(job), json.dumps([job], ensure_ascii=False, indent="\t")):
        file.write_text(text)
        (specification,) = read_job_file(file)
        assert specification.to_wire()["parameters"] == job["parameters"]


def test_yaml_with_anchors_and_merges_is_read(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(
        "- &first\n  application: {name: a, version: '1'}\n"
        "  product: {id: a, category: b, provider: c}\n"
        "  parameters: {n: {type: integer, value: 3}, b: {type: boolean, value: yes}}\n"
        "- <<: *first\n  name: second\n"
    )
    first, second = read_job_file(file)
    assert second == first.model_copy(update={"name": "second"})
    assert first.to_wire()["parameters"]["b"] == {"type": "boolean", "value": True}


def test_four_thousand_digits_are_a_number(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(HEAD + f"parameters: {{n: {{type: integer, value: {'9' * 4000}}}}}")
    assert read_job_file(file)[0].model_dump_json(by_alias=True).count("9") >= 4000


@pytest.mark.long
def test_any_document_is_jobs_or_rejected_in_sentences(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"

    def check(text: str | bytes) -> None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        found: list[str] = []
        try:
            for specification in read_job_file(file):
                assert specification.model_dump_json(by_alias=True)
        except InvalidJobFile as error:
            found = error.sentences
        assert all(map(is_a_sentence, found)), found

    documents = almost(JOB) | st.lists(almost(JOB), max_size=3) | json_values
    written = documents.map(json.dumps) | documents.map(yaml.safe_dump)
    marks = st.text("{}[]&*!|>%@`#:,?-'\"<= \n\tab01.~", max_size=40)
    tries(
        written | marks | marks.map(lambda text: HEAD + text) | st.binary(max_size=60), check, 240
    )
