"""Types with their wire form, and pure rules over them.

Every package may import it. It imports nothing of ours, does no I/O and writes no logs.
"""

from ucloud_orchestrator.models.application import (
    Application,
    ApplicationParameter,
    ApplicationType,
    Tool,
    ToolBackend,
)
from ucloud_orchestrator.models.command_line import build_command_line, build_environment
from ucloud_orchestrator.models.errors import ErrorCode, Finding
from ucloud_orchestrator.models.job import (
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
from ucloud_orchestrator.models.parameter_values import AppParameterValue
from ucloud_orchestrator.models.product import (
    BackendSupport,
    ComputeSupport,
    Product,
    ProductReference,
    ProductSupport,
)
from ucloud_orchestrator.models.session import (
    LogsSession,
    OpenSession,
    SessionType,
    ShellSession,
    VncSession,
    WebSession,
)
from ucloud_orchestrator.models.verification import verify
from ucloud_orchestrator.models.workspace import Workspace

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
