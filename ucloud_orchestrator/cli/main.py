"""The entry point of the command line."""

from __future__ import annotations

import logging
import sys
from typing import NoReturn

import typer
from pydantic import ValidationError
from temporalio.runtime import Runtime
from typer.exceptions import TyperException

from client import OrchestratorError, RequestRefused, Unreachable
from ucloud_orchestrator.cli import (
    job_commands,
    log_commands,
    session_commands,
    stack_commands,
    wallet_commands,
)
from ucloud_orchestrator.cli.exit_codes import INTERRUPTED, REJECTED, UNREACHABLE
from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.process.shutdown import exit_process
from ucloud_orchestrator.temporal import tracing
from ucloud_orchestrator.temporal.runtime import LOGGER, make_runtime

app = typer.Typer(
    name="ucloud-orchestrator",
    help="Durable compute jobs: start them, watch them, stop them; and run the whole stack on "
    "this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
job_commands.add_to(app)
log_commands.add_to(app)
session_commands.add_to(app)
stack_commands.add_to(app)
wallet_commands.add_to(app)


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code. Errors are sentences on standard error."""
    try:
        result = app(arguments, standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except TyperException as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return REJECTED
    except typer.Abort:
        return INTERRUPTED
    except RequestRefused as error:
        for sentence in [finding.message for finding in error.findings] or [str(error)]:
            sys.stderr.write(f"{sentence}\n")
        return REJECTED
    except Unreachable as error:
        sys.stderr.write(f"{error}\n")
        return UNREACHABLE
    except OrchestratorError as error:
        sys.stderr.write(f"{error}\n")
        return REJECTED
    except ValidationError as error:
        sys.stderr.writelines(f"{sentence}\n" for sentence in error_messages(error))
        return REJECTED
    except UnicodeError:
        sys.stderr.write("An argument or setting has bytes that are no text in UTF-8.\n")
        return REJECTED
    except KeyboardInterrupt:
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def main() -> NoReturn:
    # Commands report an unreachable Temporal in their own sentence.
    logging.getLogger(LOGGER).setLevel(logging.ERROR)
    Runtime.set_default(make_runtime())
    try:
        tracing.start("ucloud-client")
        code = run()
    except tracing.TracingUnavailable as error:
        sys.stderr.write(f"{error}\n")
        code = REJECTED
    tracing.stop()
    exit_process(code)
