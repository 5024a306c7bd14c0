"""Alembic's entry."""

from ucloud_orchestrator.process.migrations import run_environment

run_environment()
