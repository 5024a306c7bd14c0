"""Reading a catalog folder: every YAML file below it, every document in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ucloud_orchestrator.catalog.catalog import (
    Catalog,
    Problem,
    ProductEntry,
    ProviderEntry,
    Severity,
)
from ucloud_orchestrator.catalog.validation import application_mistakes, tool_mistakes
from ucloud_orchestrator.catalog.yaml_source import YamlError, read_text
from ucloud_orchestrator.catalog.yaml_text import Document, documents
from ucloud_orchestrator.models.application import Application, Tool
from ucloud_orchestrator.models.base import ApiModel, error_messages
from ucloud_orchestrator.models.workspace import (
    Drive,
    License,
    Project,
    PublicIp,
    PublicLink,
    Resource,
)

KINDS: Mapping[str, type[ApiModel]] = {
    "application": Application,
    "tool": Tool,
    "product": ProductEntry,
    "provider": ProviderEntry,
    "project": Project,
    "drive": Drive,
    "license": License,
    "publicLink": PublicLink,
    "publicIp": PublicIp,
}
"""A document says what it is by its key, such as `application: v1`."""


@dataclass(frozen=True)
class Entry:
    """One thing that was read, and where it stands."""

    item: ApiModel
    file: Path
    document: Document


@dataclass(frozen=True)
class FileContents:
    """What a file holds, and what is wrong with it alone."""

    entries: list[Entry]
    problems: list[Problem]


def load(folder: Path) -> Catalog:
    """Read the folder. Mistakes do not raise: they are the catalog's `problems`, and the rest is
    there.

    Raises `NotADirectoryError` if there is no such folder.
    """
    return combine({file: read_file(file) for file in yaml_files(folder)})


def yaml_files(folder: Path) -> list[Path]:
    """The YAML files below the folder, in a fixed order. Raises `NotADirectoryError`."""
    if not folder.is_dir():
        raise NotADirectoryError(f"There is no catalog folder {folder}.")
    return sorted(
        file for file in folder.rglob("*") if file.suffix in {".yaml", ".yml"} and file.is_file()
    )


def read_file(file: Path) -> FileContents:
    """Read one file."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    try:
        for document in documents(read_text(file)):
            entry, found = _read_document(file, document)
            entries += [entry] if entry else []
            problems += found
    except YamlError as mistake:
        problems.append(Problem(file, mistake.line, str(mistake)))
    except OSError as error:
        problems.append(Problem(file, 1, f"the file cannot be read: {error}."))
    return FileContents(entries, problems)


def combine(files: Mapping[Path, FileContents]) -> Catalog:
    """One catalog of several files, with what is wrong between them."""
    problems = [problem for contents in files.values() for problem in contents.problems]
    first: dict[type[ApiModel], dict[Any, Entry]] = {kind: {} for kind in KINDS.values()}
    for entry in (entry for contents in files.values() for entry in contents.entries):
        key = _key(entry.item)
        known = first[type(entry.item)].setdefault(key, entry)
        if known is not entry:
            message = (
                f"{key} stands already in {known.file}:{known.document.line}; this one is left out."
            )
            problems.append(Problem(entry.file, entry.document.line, message))
    everything: dict[type[ApiModel], dict[Any, Any]] = {
        kind: {key: entry.item for key, entry in entries.items()} for kind, entries in first.items()
    }
    catalog = Catalog(
        applications=everything[Application],
        tools=everything[Tool],
        products=everything[ProductEntry],
        provider_entries=everything[ProviderEntry],
        projects=everything[Project],
        drives=everything[Drive],
        licenses=everything[License],
        links=everything[PublicLink],
        addresses=everything[PublicIp],
        problems=problems,
    )
    for entries in first.values():
        for entry in entries.values():
            for location, message in _dangling(entry.item, catalog):
                problems.append(Problem(entry.file, entry.document.line_of(location), message))
    return catalog


def _key(item: ApiModel) -> Any:
    return item.reference if isinstance(item, Application | Tool | ProductEntry) else item.id  # type: ignore[attr-defined]


def _dangling(item: ApiModel, catalog: Catalog) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """What an entry names that no other entry is."""
    match item:
        case Application(tool=tool) if tool not in catalog.tools:
            yield ("tool",), f"there is no tool {tool}."
        case ProductEntry() if item.category.provider not in catalog.provider_entries:
            yield ("category", "provider"), f"there is no provider {item.category.provider}."
        case Resource():
            if item.provider not in catalog.provider_entries:
                yield ("provider",), f"there is no provider {item.provider}."
            if item.owner is not None and item.owner.project not in {None, *catalog.projects}:
                yield ("owner",), f"there is no project {item.owner.project}."
            if item.owner is None and not item.public:
                yield (), "it needs an owner, or permissions that are public."


def _read_document(file: Path, document: Document) -> tuple[Entry | None, list[Problem]]:
    value = document.value
    kind = next(
        (
            kind
            for kind in KINDS
            if isinstance(value, dict) and kind in value and value[kind] == "v1"
        ),
        None,
    )
    if kind is None:
        known = ", ".join(f"'{kind}: v1'" for kind in KINDS)
        return None, [
            Problem(file, document.line, f"the document does not say what it is: one of {known}.")
        ]
    body = {key: part for key, part in value.items() if key != kind}
    problems: list[Problem] = []
    try:
        item = KINDS[kind].model_validate(body, by_name=False)
    except ValidationError as error:
        for detail, sentence in zip(error.errors(), error_messages(error, body), strict=True):
            problems.append(Problem(file, document.line_of(detail["loc"]), sentence))
        return None, problems
    mistakes: Iterator[tuple[tuple[int | str, ...], str]] = iter(())
    if isinstance(item, Application):
        mistakes = application_mistakes(item)
    elif isinstance(item, Tool):
        mistakes = tool_mistakes(item)
    problems = [
        Problem(file, document.line_of(location), message) for location, message in mistakes
    ]
    problems += [
        Problem(
            file,
            document.line_of((key,)),
            f"{key} is not a known field and has no effect.",
            Severity.WARNING,
        )
        for key in _unknown(item, body)
    ]
    has_error = any(problem.severity is Severity.ERROR for problem in problems)
    return (None if has_error else Entry(item, file, document)), problems


def _unknown(item: ApiModel, body: Mapping[str, Any]) -> list[str]:
    known = {field.alias or name for name, field in type(item).model_fields.items()}
    return [key for key in body if key not in known]
