"""The stand-in for k3s, built once for each version that it is to call itself, and a place to download it from."""

from __future__ import annotations

import hashlib
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cluster.build import FASTER, digest
from cluster.commands import require_go, run
from cluster.places import CACHE

from nodes.places import HERE

SOURCES = HERE / "standin"
VERSION, NEWER = "v1.34.3+k3s1", "v1.35.1+k3s1"


def build(version: str = VERSION, architecture: str = "amd64") -> Path:
    """The program, which calls itself of that version."""
    folder = CACHE / f"stand-in-{digest(SOURCES)}"
    program = folder / f"k3s-{version}-{architecture}"
    if not program.exists():
        require_go("1.26")
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(".new")
        flags = ["-trimpath", f"-ldflags=-s -w -X main.version={version}"]
        env = {**FASTER, "GOOS": "linux", "GOARCH": architecture}
        run("nice", "-n", "5", "go", "build", *flags, "-o", unfinished, ".", cwd=SOURCES, env=env)
        unfinished.rename(program)
    return program


@dataclass
class Releases:
    """A web server with releases as k3s' have them: programs, their checksums, and channels that name a version."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    channels: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """The path of each request, decoded."""

    def publish(self, version: str, programs: Mapping[str, bytes]) -> None:
        """Of each architecture the program; an entry of it may be replaced afterwards."""
        for architecture, program in programs.items():
            suffix = "" if architecture == "amd64" else f"-{architecture}"
            self.files[f"/{version}/k3s{suffix}"] = program
            sum_ = hashlib.sha256(program).hexdigest()
            others = f"{hashlib.sha256(b'images').hexdigest()}  k3s-airgap-images-{architecture}.tar.zst\n"
            self.files[f"/{version}/sha256sum-{architecture}.txt"] = f"{others}{sum_}  k3s{suffix}\n".encode()


@contextmanager
def releases(address: str) -> Iterator[Releases]:
    """Serve at an address of this machine until the block ends."""
    offered = Releases("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urllib.parse.unquote(self.path)
            offered.asked.append(path)
            if version := offered.channels.get(path.removeprefix("/channels/")):
                self.send_response(302)
                self.send_header("Location", f"{offered.url}/tag/{urllib.parse.quote(version)}")
                body = b""
            elif path.startswith("/tag/"):
                self.send_response(200)
                body = b"the release's page"
            elif path in offered.files:
                self.send_response(200)
                body = offered.files[path]
            else:
                self.send_response(404)
                body = b"not found"
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_message: object) -> None:
            """It is in ``asked``."""

    with ThreadingHTTPServer((address, 0), Handler) as server:
        offered.url = f"http://{address}:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield offered
        finally:
            server.shutdown()
