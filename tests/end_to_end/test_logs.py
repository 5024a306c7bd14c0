"""Read jobs' logs by the command line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import Any

import pytest

from tests.builders import product, text
from tests.end_to_end.running_stack import COMMAND, Stack

COUNTING = "for number in $(seq 400); do echo line $number; sleep 0.05; done; echo wrong >&2"


def writing(stack: Stack, script: str, **changes: Any) -> str:
    job = stack.job_file("writer", "1", script=text(script))
    job.write_text(json.dumps(json.loads(job.read_text()) | changes))
    return str(stack.json("submit", str(job))["id"])


@pytest.mark.timeout(180)
def test_logs_of_an_ended_job_keep_the_streams_apart(stack: Stack) -> None:
    job_id = writing(stack, r"printf 'out\0 \377 50%%\rend'; echo wrong >&2")
    stack.reached(job_id, "SUCCESS")
    done = stack.run("logs", job_id)
    assert (done.returncode, done.stderr) == (0, "wrong\n")
    raw = subprocess.run(
        [COMMAND, "logs", job_id, "--data-dir", stack.folder], capture_output=True, check=True
    )
    assert raw.stdout == "out\0 \ufffd 50%\rend".encode()
    only = stack.run("logs", job_id, "--stderr")
    assert (only.stdout, only.stderr) == ("", "wrong\n")
    messages = [
        json.loads(line)
        for line in stack.run("logs", job_id, "--json", "--stderr").stdout.splitlines()
    ]
    assert [(message["rank"], message["stderr"], message["position"]) for message in messages] == [
        (0, "wrong\n", 6)
    ]
    stranger = stack.run("logs", job_id, "--user", "mallory")
    assert (stranger.returncode, stranger.stdout) == (2, "")
    assert "There is no job" in stranger.stderr


@pytest.mark.timeout(180)
def test_lines_of_replicas_have_their_rank(stack: Stack) -> None:
    job_id = writing(stack, r"printf 'one\ntwo'; echo wrong >&2", replicas=2)
    stack.reached(job_id, "SUCCESS")
    done = stack.run("logs", job_id, "--follow")
    assert sorted(done.stdout.splitlines()) == ["[0] one", "[0] two", "[1] one", "[1] two"]
    assert sorted(done.stderr.splitlines()) == ["[0] wrong", "[1] wrong"]
    assert stack.run("logs", job_id, "--rank", "1", "--stdout").stdout == "[1] one\n[1] two\n"


@pytest.mark.long
@pytest.mark.timeout(240)
def test_logs_continue_after_kills_of_provider_and_worker(stack: Stack) -> None:
    job_id = writing(stack, COUNTING)
    command = [COMMAND, "logs", job_id, "--follow", "--data-dir", str(stack.folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        first = reader.stdout.readline()
        stack.kill("provider")
        stack.kill("worker")
        out, wrong = reader.stdout.read(), reader.stderr.read()
    assert reader.returncode == 0
    assert first + out == "".join(f"line {number}\n" for number in range(1, 401))
    assert wrong == "wrong\n"


@pytest.mark.timeout(180)
def test_follow_shows_states_and_output_together(stack: Stack) -> None:
    job_id = writing(stack, "echo first; sleep 3; printf last; exit 3")
    done = stack.run("follow", job_id)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in {"first", "last"}] == ["first", "last"]
    states = [
        index for index, line in enumerate(lines) if "  RUNNING" in line or "  SUCCESS" in line
    ]
    assert lines.index("last") < states[-1] == len(lines) - 1
    messages: list[Any] = [
        json.loads(line) for line in stack.run("follow", job_id, "--json").stdout.splitlines()
    ]
    assert "".join(message.get("stdout", "") for message in messages) == "first\nlast"
    assert messages[-1]["status"]["state"] == "SUCCESS"


@pytest.mark.timeout(180)
def test_follow_on_a_terminal_shows_the_last_lines(stack: Stack) -> None:
    job_id = writing(stack, r"seq 1000; printf 'a\033[2Jb\n'")
    stack.reached(job_id, "SUCCESS")
    here, there = pty.openpty()
    command = [COMMAND, "follow", job_id, "--data-dir", str(stack.folder)]
    with subprocess.Popen(
        command, stdin=there, stdout=there, stderr=there, env={**os.environ, "TERM": "xterm"}
    ) as seen:
        os.close(there)
        shown = b""
        try:
            while data := os.read(here, 65536):
                shown += data
        except OSError:  # the end of a terminal
            os.close(here)
    assert seen.returncode == 0
    screen = shown.decode()
    assert job_id in screen
    assert "1000" in screen
    assert "a [2Jb" in screen
    assert "\x1b[2J" not in screen


@pytest.mark.timeout(180)
def test_the_reader_of_a_pipe_may_close_it(stack: Stack) -> None:
    job_id = writing(stack, "seq 1000000")
    stack.reached(job_id, "SUCCESS")
    done = subprocess.run(
        ["sh", "-c", f"{COMMAND} logs {job_id} --data-dir {stack.folder} | head -n 1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_product_without_logs_shows_only_states(stack: Stack) -> None:
    job_id = writing(stack, "echo out", product=product("quiet"))
    stack.reached(job_id, "SUCCESS")
    assert "does not support logs" in stack.run("logs", job_id).stderr
    done = stack.run("follow", job_id)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SUCCESS" in done.stdout
    assert "out\n" not in done.stdout.splitlines(keepends=True)
