"""The eleven situations of UCloud's documentation, and the tests that go through each from end to
end.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SITUATIONS = {
    "a simple batch job": [
        "test_stack::test_a_job_from_the_command_line_to_its_files",
        "test_stack::test_a_success_has_its_exit_code",
        "test_slurm_stack::test_a_batch_job_with_its_exit_code_and_output",
    ],
    "following its progress": [
        "test_logs::test_follow_shows_states_and_output_together",
        "test_logs::test_logs_continue_after_kills_of_provider_and_worker",
        "test_slurm_stack::test_logs_are_followed_by_rank",
    ],
    "an interactive terminal on a given rank": [
        "test_failure_scenarios::test_an_interactive_terminal",
        "test_slurm_stack::test_a_terminal_on_the_node_of_a_rank",
    ],
    "connecting two jobs": [
        "test_job_endings::test_only_peers_reach_each_other",
        "test_slurm_stack::test_peers_find_each_other_by_their_host_names",
    ],
    "a public link that comes free afterwards": [
        "test_sessions::test_a_public_link_leads_to_its_job_until_the_end"
    ],
    "licensed software": ["test_failure_scenarios::test_licensed_software"],
    "a remote desktop": ["test_sessions::test_a_desktop_and_a_terminal_of_one_job"],
    "a web application": ["test_sessions::test_a_session_address_opens_once"],
    "losing access to a resource while running": ["test_failure_scenarios::test_losing_access"],
    "running out of credits": [
        "test_failure_scenarios::test_credits",
        "test_failure_scenarios::test_out_of_credits",
    ],
    "extending a job and ending it early": [
        "test_failure_scenarios::test_extending_and_ending_early",
        "test_slurm_stack::test_an_extension_extends_the_slurm_job",
        "test_slurm_stack::test_a_cancel_leaves_no_process_and_no_claim",
    ],
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_situation_has_tests(situation: str) -> None:
    for test in SITUATIONS[situation]:
        module, _, name = test.partition("::")
        tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text())
        names = [
            one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        assert name in names, (
            f"There is no test {name} in {module}.py any more: name the one that shows {situation}."
        )
