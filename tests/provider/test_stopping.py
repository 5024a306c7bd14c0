"""The provider's process when it is asked to stop."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.provider.provider_process import Reports, Served


def test_a_request_that_does_not_end_holds_it_up_for_seconds_only(tmp_path: Path) -> None:
    served = Served(tmp_path, Reports())
    settings = {
        "UCLOUD_PROVIDER_DATA_DIR": str(served.settings.data_dir),
        "UCLOUD_PROVIDER_PUBLIC_KEY_FILE": str(served.settings.public_key_file),
        "UCLOUD_PROVIDER_PORT": "0",
    }
    command = [sys.executable, "-m", "ucloud_orchestrator.provider", "--json"]
    with subprocess.Popen(
        command, env=os.environ | settings, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = urlsplit(json.loads(process.stdout.readline())["url"])
        with socket.create_connection((address.hostname, address.port)) as connection:
            lines = (
                "POST /ucloud/local/jobs/verify HTTP/1.1",
                "Host: local",
                f"Authorization: Bearer {served.token()}",
            )
            head = "\r\n".join(
                (
                    *lines,
                    "Content-Type: application/json",
                    "Content-Length: 100",
                    "Expect: 100-continue",
                )
            )
            connection.sendall(f"{head}\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 100")  # it waits for the body
            process.terminate()
            assert process.wait(20) == 0
