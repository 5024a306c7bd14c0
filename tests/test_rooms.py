"""The rule of `worker.py`, which import-linter cannot hold because it is a module: neither client
nor provider.
"""

from __future__ import annotations

import ast
from pathlib import Path

import worker


def test_the_worker_imports_neither_client_nor_provider() -> None:
    tree = ast.parse(Path(worker.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    rooms = {name.split(".")[0] for name in imported if name}
    assert "workflows" in rooms
    assert rooms.isdisjoint({"client", "provider", "cli"})
