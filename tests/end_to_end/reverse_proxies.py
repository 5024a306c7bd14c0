"""Run nginx before a Temporal server: TLS, client certificates, API keys and rejections."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.end_to_end.chromium import need
from tests.waiting import wait_until
from ucloud_orchestrator.cli.supervisor import accepts_connections, free_port

API_KEY = "the-key-of-the-tests"
SERVER_NAME = "temporal.example.org"
_PLACE = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
  log_format request escape=none '$server_port $request_uri $http_authorization';
  access_log {folder}/requests.log request;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  grpc_read_timeout 1h;
  client_max_body_size 0;
  {servers}
}}
"""
_TLS = (
    "listen 127.0.0.1:{port} ssl http2; ssl_certificate {folder}/server.pem; "
    "ssl_certificate_key {folder}/server.key;"
)
_MUTUAL = "ssl_client_certificate {folder}/ca.pem; ssl_verify_client on;"
_PASS = "grpc_pass grpc://{temporal};"
_KEY = 'if ($http_authorization != "Bearer {key}") {{ return 401; }}'
_DENIED = (
    "default_type application/grpc; add_header grpc-status 7; add_header grpc-message "
    "Denied.; return 200;"
)


@dataclass(frozen=True)
class Front:
    """The addresses of an nginx before a Temporal server, and its clients' files."""

    folder: Path
    temporal: str
    """The Temporal server's own address."""
    tls: str
    """Requires TLS."""
    guarded: str
    """Requires TLS, a client certificate and the API key."""
    without_operator: str
    """Without TLS; denies the calls of administrators, as hosted clusters do."""

    def file(self, name: str) -> str:
        """Return the path of a key or certificate, such as `ca.pem`, `client.key` or
        `stranger.pem`.
        """
        return str(self.folder / name)

    def requests(self) -> list[tuple[str, str, str]]:
        """Return port, path and authorization of each answered request."""
        lines = (self.folder / "requests.log").read_text().splitlines()
        return [
            (port, path, authorization)
            for port, path, authorization in (line.split(" ", 2) for line in lines)
        ]


def make_certificates(folder: Path) -> None:
    """Make one authority for the server and a client, and another for a stranger."""
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other-ca.pem"))
    for name, certificate in (
        ("server", authority.issue_cert("localhost", SERVER_NAME)),
        ("client", authority.issue_cert("worker@example.org")),
        ("stranger", other.issue_cert("stranger@example.org")),
    ):
        certificate.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        (folder / f"{name}.pem").write_bytes(
            b"".join(part.bytes() for part in certificate.cert_chain_pems)
        )


@contextlib.contextmanager
def nginx_before(temporal: str, folder: Path) -> Iterator[Front]:
    """Run a front before the Temporal server at that address."""
    need("nginx")
    make_certificates(folder)
    ports = {name: free_port() for name in ("tls", "guarded", "without_operator")}
    words = {"folder": folder, "temporal": temporal, "key": API_KEY}
    servers = [
        f"{_TLS} location / {{{{ {_PASS} }}}}".format(port=ports["tls"], **words),
        f"{_TLS} {_MUTUAL} location / {{{{ {_KEY} {_PASS} }}}}".format(
            port=ports["guarded"], **words
        ),
        f"listen 127.0.0.1:{ports['without_operator']} http2; location / {{ "
        f"{_PASS.format(**words)} }} "
        f"location /temporal.api.operatorservice.v1.OperatorService/ {{ {_DENIED} }}",
    ]
    settings = folder / "nginx.conf"
    settings.write_text(
        _PLACE.format(
            folder=folder, servers="\n  ".join(f"server {{ {text} }}" for text in servers)
        )
    )
    command = [
        str(shutil.which("nginx")),
        "-c",
        str(settings),
        "-p",
        str(folder),
        "-e",
        str(folder / "error.log"),
    ]
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: all(accepts_connections(port) for port in ports.values()))
        yield Front(folder, temporal, **{name: f"localhost:{port}" for name, port in ports.items()})
    finally:
        process.terminate()
        process.wait(10)
