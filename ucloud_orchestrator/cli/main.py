"""The entry of the command line, and the one place where a process of ours ends."""

from __future__ import annotations

import logging
import os
import sys

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
from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.temporal import tracing
from ucloud_orchestrator.temporal.runtime import LOGGER, make_runtime

REFUSED, UNREACHABLE = 2, 3

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
    """Run one command; returns its exit code. Errors are one sentence each on standard error."""
    try:
        result = app(arguments, standalone_mode=False)
    except typer.Exit as leaving:
        return leaving.exit_code
    except TyperException as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return REFUSED
    except typer.Abort:
        return 130
    except RequestRefused as error:
        for sentence in [finding.message for finding in error.findings] or [str(error)]:
            sys.stderr.write(f"{sentence}\n")
        return REFUSED
    except Unreachable as error:
        sys.stderr.write(f"{error}\n")
        return UNREACHABLE
    except OrchestratorError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    except ValidationError as error:
        sys.stderr.writelines(f"{sentence}\n" for sentence in error_messages(error))
        return REFUSED
    except UnicodeError:
        sys.stderr.write("An argument or setting has bytes that are no text in UTF-8.\n")
        return REFUSED
    except KeyboardInterrupt:
        return 130
    return result if isinstance(result, int) else 0


def main() -> None:
    """Run one command and leave the process.

    The Temporal SDK aborts about one short-lived process in ten while the interpreter shuts down (sdk-python issue
    300), so all is flushed here and the interpreter's shutdown is left out.
    """
    logging.getLogger(LOGGER).setLevel(
        logging.ERROR
    )  # a command says itself that Temporal does not answer
    Runtime.set_default(make_runtime())
    try:
        tracing.start("ucloud-client")
        code = run()
    except tracing.TracingUnavailable as error:
        sys.stderr.write(f"{error}\n")
        code = REFUSED
    tracing.stop()
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)
