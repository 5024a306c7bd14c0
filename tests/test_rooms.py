"""The import rule of `worker.py`, a module, which import-linter cannot check."""

from __future__ import annotations

import ast
from pathlib import Path

import worker

FORBIDDEN = ("client", "ucloud_orchestrator.cli", "ucloud_orchestrator.provider")


def test_worker_imports_neither_client_nor_provider() -> None:
    tree = ast.parse(Path(worker.__file__).read_text())
    imported = {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    imported |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert "workflows" in imported
    for name in imported:
        assert not any(name == room or name.startswith(f"{room}.") for room in FORBIDDEN), name
