"""A process ends in bounded time after it was asked to stop."""

from __future__ import annotations

import base64
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ucloud_orchestrator.cli.supervisor import free_port
from ucloud_orchestrator.temporal import codec_server
from ucloud_orchestrator.temporal.encryption_keys import KEY_FILE_VARIABLE

HANGING = """
import asyncio, logging, signal, time
from ucloud_orchestrator.process.shutdown import ShutdownWatchdog

async def hang():
    watchdog = ShutdownWatchdog(0.5)
    signal.signal(signal.SIGTERM, lambda *_: watchdog.begin(7))
    print("ready", flush=True)
    {hang}

asyncio.run(hang())
"""


@pytest.mark.parametrize(
    "hang",
    [
        "while True: pass",
        "time.sleep(600)",
        "await asyncio.sleep(600)",
        "while True: logging.warning('The pipe is full.')",
    ],
)
def test_the_watchdog_ends_a_process_that_hangs(hang: str) -> None:
    command = [sys.executable, "-c", HANGING.format(hang=hang)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 7


def test_the_codec_server_does_not_wait_for_unfinished_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text(f"first {base64.b64encode(bytes(32)).decode()}\n")
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(tmp_path / "keys"))
    port = free_port()
    monkeypatch.setenv("UCLOUD_CODEC_PORT", str(port))
    with subprocess.Popen(
        [sys.executable, "-m", "ucloud_orchestrator.temporal.codec_server"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "Uvicorn running" not in (line := process.stderr.readline()):
            assert line, "The server did not start."
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST /decode HTTP/1.1\r\nHost: codec\r\nContent-Length: 100\r\n\r\n{")
            process.send_signal(signal.SIGTERM)
            process.wait(codec_server.STOP_TIMEOUT + 20)
