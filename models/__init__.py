"""The types that everybody shares, with their wire form, and the pure rules over them."""

from models.application import (
    Application,
    ApplicationParameter,
    ApplicationType,
    Tool,
    ToolBackend,
)
from models.command_line import build_command_line, build_environment
from models.errors import ErrorCode, Finding
from models.job import (
    TERMINAL_STATES,
    Job,
    JobBilling,
    JobOutput,
    JobOwner,
    JobSpecification,
    JobState,
    JobStatus,
    JobUpdate,
    NameAndVersion,
    Permission,
    ProjectGroupEntity,
    ResourceAclEntry,
    ResourcePermissions,
    SimpleDuration,
    UserEntity,
)
from models.product import BackendSupport, ComputeSupport, Product, ProductReference, ProductSupport
from models.session import LogsSession, OpenSession, SessionType, ShellSession, VncSession, WebSession
from models.values import AppParameterValue
from models.verification import verify
from models.workspace import Workspace

__all__ = [
    "TERMINAL_STATES",
    "AppParameterValue",
    "Application",
    "ApplicationParameter",
    "ApplicationType",
    "BackendSupport",
    "ComputeSupport",
    "ErrorCode",
    "Finding",
    "Job",
    "JobBilling",
    "JobOutput",
    "JobOwner",
    "JobSpecification",
    "JobState",
    "JobStatus",
    "JobUpdate",
    "LogsSession",
    "NameAndVersion",
    "OpenSession",
    "Permission",
    "Product",
    "ProductReference",
    "ProductSupport",
    "ProjectGroupEntity",
    "ResourceAclEntry",
    "ResourcePermissions",
    "SessionType",
    "ShellSession",
    "SimpleDuration",
    "Tool",
    "ToolBackend",
    "UserEntity",
    "VncSession",
    "WebSession",
    "Workspace",
    "build_command_line",
    "build_environment",
    "verify",
]
