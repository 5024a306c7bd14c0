"""Lists the patches of all workflows, and decides which of them a worker may begin.

A patch is a change that a running job of an older release must not meet
(`docs/operators/upgrades.md`).
"""

from __future__ import annotations

from collections.abc import Callable

from temporalio.worker import PatchActivationInput

PATCHES: dict[str, str] = {}
"""The ids that the workflows pass to `workflow.patched`, each with the release that brings it."""


def inactive_patches(compatible_with: str) -> list[str]:
    return [
        patch for patch, release in PATCHES.items() if _number(release) > _number(compatible_with)
    ]


def activation(compatible_with: str | None) -> Callable[[PatchActivationInput], bool] | None:
    """Return the worker's `patch_activation_callback`; None begins every patch.

    The callback is not asked for a patch that the job's history already has.
    """
    if compatible_with is None:
        return None
    inactive = frozenset(inactive_patches(compatible_with))
    return lambda patch: patch.patch_id not in inactive


def _number(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))
