"""Load a catalog: every document of every YAML file below a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
from ucloud_orchestrator.catalog.validation import item_mistakes, reference_mistakes
from ucloud_orchestrator.catalog.yaml import Document, YamlError, read_documents, read_text
from ucloud_orchestrator.models.application import Application, Tool
from ucloud_orchestrator.models.base import ApiModel, error_messages
from ucloud_orchestrator.models.workspace import Drive, License, Project, PublicIp, PublicLink

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
"""The key that names a document's kind, such as `application: v1`."""


@dataclass(frozen=True)
class Entry:
    item: ApiModel
    file: Path
    document: Document


@dataclass(frozen=True)
class FileContents:
    """The entries of one file, and the problems that the file has by itself."""

    entries: list[Entry]
    problems: list[Problem]


def load(folder: Path) -> Catalog:
    """Load the folder. An invalid document is left out, and its mistakes are in `problems`.

    Raises `NotADirectoryError`.
    """
    return combine({file: read_file(file) for file in yaml_files(folder)})


def yaml_files(folder: Path) -> list[Path]:
    """List the YAML files below the folder, sorted by path. Raises `NotADirectoryError`."""
    if not folder.is_dir():
        raise NotADirectoryError(f"There is no catalog folder {folder}.")
    return sorted(
        file for file in folder.rglob("*") if file.suffix in {".yaml", ".yml"} and file.is_file()
    )


def read_file(file: Path) -> FileContents:
    """Read and validate one file; problems are returned, not raised."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    try:
        for document in read_documents(read_text(file)):
            entry, found = _read_entry(file, document)
            entries += [entry] if entry else []
            problems += found
    except YamlError as error:
        problems.append(Problem(file, error.line, str(error)))
    except OSError as error:
        problems.append(Problem(file, 1, f"the file cannot be read: {error}."))
    return FileContents(entries, problems)


def combine(files: Mapping[Path, FileContents]) -> Catalog:
    problems = [problem for contents in files.values() for problem in contents.problems]
    entries, duplicates = _index(entry for contents in files.values() for entry in contents.entries)
    items: dict[type[ApiModel], dict[Any, Any]] = {
        kind: {key: entry.item for key, entry in of_kind.items()}
        for kind, of_kind in entries.items()
    }
    catalog = Catalog(
        applications=items[Application],
        tools=items[Tool],
        products=items[ProductEntry],
        provider_entries=items[ProviderEntry],
        projects=items[Project],
        drives=items[Drive],
        licenses=items[License],
        links=items[PublicLink],
        addresses=items[PublicIp],
        problems=problems + duplicates,
    )
    for of_kind in entries.values():
        for entry in of_kind.values():
            for location, message in reference_mistakes(entry.item, catalog):
                line = entry.document.line_of(location)
                catalog.problems.append(Problem(entry.file, line, message))
    return catalog


def _index(
    entries: Iterable[Entry],
) -> tuple[dict[type[ApiModel], dict[Any, Entry]], list[Problem]]:
    """Index entries by kind and key. The first of a key is kept, each other is a problem."""
    index: dict[type[ApiModel], dict[Any, Entry]] = {kind: {} for kind in KINDS.values()}
    duplicates: list[Problem] = []
    for entry in entries:
        key = _key(entry.item)
        first = index[type(entry.item)].setdefault(key, entry)
        if first is not entry:
            message = (
                f"{key} stands already in {first.file}:{first.document.line}; this one is left out."
            )
            duplicates.append(Problem(entry.file, entry.document.line, message))
    return index, duplicates


def _key(item: ApiModel) -> Any:
    return item.reference if isinstance(item, Application | Tool | ProductEntry) else item.id  # type: ignore[attr-defined]


def _read_entry(file: Path, document: Document) -> tuple[Entry | None, list[Problem]]:
    kind = _kind(document.value)
    if kind is None:
        kinds = ", ".join(f"'{kind}: v1'" for kind in KINDS)
        message = f"the document does not say what it is: one of {kinds}."
        return None, [Problem(file, document.line, message)]
    body = {key: value for key, value in document.value.items() if key != kind}
    try:
        item = KINDS[kind].model_validate(body, by_name=False)
    except ValidationError as error:
        return None, [
            Problem(file, document.line_of(detail["loc"]), message)
            for detail, message in zip(error.errors(), error_messages(error, body), strict=True)
        ]
    mistakes = [
        Problem(file, document.line_of(location), message)
        for location, message in item_mistakes(item)
    ]
    warnings = [
        Problem(
            file,
            document.line_of((key,)),
            f"{key} is not a known field and has no effect.",
            Severity.WARNING,
        )
        for key in _unknown_fields(item, body)
    ]
    return (None if mistakes else Entry(item, file, document)), mistakes + warnings


def _kind(value: Any) -> str | None:
    if not isinstance(value, dict):
        return None
    return next((kind for kind in KINDS if value.get(kind) == "v1"), None)


def _unknown_fields(item: ApiModel, body: Mapping[str, Any]) -> Iterator[str]:
    fields = {field.alias or name for name, field in type(item).model_fields.items()}
    return (key for key in body if key not in fields)
