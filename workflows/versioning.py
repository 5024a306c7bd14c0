"""Every change of a workflow that jobs of older releases must not meet, and which of these a worker
begins.
"""

from __future__ import annotations

from collections.abc import Callable

from temporalio.worker import PatchActivationInput

RELEASE = "0.4"
"""What this code is, or becomes: the first two numbers of the version."""

PATCHES = {
    "spill-before-the-end": "0.2",
    "spill-in-pages": "0.2",
    "extension-is-paid": "0.2",
    "refusal-after-withdrawal": "0.2",
    "leave-the-batch": "0.3",
    "cancel-a-batch": "0.3",
    "refusal-after-stop": "0.3",
    "last-word-before-bill": "0.3",
    "continue-after-a-timer": "0.3",
    "in-step": "0.4",
    "broken-off-is-no-refusal": "0.4",
    "bounded-updates": "0.4",
    "escaped-texts": "0.4",
    "nothing-large-is-carried": "0.4",
    "children-in-slices": "0.4",
}
"""What the code asks `workflow.patched` for, and the release that brought it."""


def inactive_patches(compatible_with: str) -> list[str]:
    """The patches that the given release does not know."""
    return [
        patch for patch, release in PATCHES.items() if _number(release) > _number(compatible_with)
    ]


def activation(compatible_with: str | None) -> Callable[[PatchActivationInput], bool] | None:
    """Decides for a worker whether a job begins a patch; None: it begins all.

    A job that has begun one goes on with it under every worker that knows it, whatever this says:
    its history decides.
    """
    if compatible_with is None:
        return None
    waiting = frozenset(inactive_patches(compatible_with))
    return lambda asked: asked.patch_id not in waiting


def _number(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))
