"""`make demo`, by an ordinary user in a folder that holds what a clone would; then again; then `make reset`."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from parts.running import (
    BIN,
    Check,
    Log,
    Skipped,
    copy_checkout,
    make_home,
    processes_of,
    read,
    temporary_folder,
    verdict,
)

FIRST_RUN, LATER_RUNS = 240, 30
"""Seconds that are promised. A busy machine takes longer, so they are told and not asserted."""

PAGES = {
    "http://localhost:8000/service/1": "Hello I am a simple express api service 1",
    "http://localhost:8000/service/2": "Hello I am a simple express api service 2",
    "http://localhost:8080/": "",
    "http://localhost:10000/": "",
    "http://localhost:10001/": "",
}
PORTS = (8000, 8080, 8443, 10000, 10001)
CALLS = 30
"""gRPC calls in which each of the three replicas has its turn."""

PASSED_ON = re.compile(r"(?i:https?_proxy|no_proxy)|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|NODE_EXTRA_CA_CERTS|PIP_CERT")
"""What the environment may say of the way to package registries; the home's settings of pip say the rest."""


@dataclass(frozen=True)
class User:
    """An ordinary user with a home of their own, and the words before a command that make it theirs."""

    home: Path
    prefix: list[str]
    python: str

    @property
    def clone(self) -> Path:
        return self.home / "sidecar.mesh"

    def make(self, log: Log, target: str) -> tuple[int, str, float]:
        """Exit code, output and seconds of a make target in the clone."""
        started = time.monotonic()
        command = [*self.prefix, "make", target, f"PYTHON={self.python}"]
        code, output = log.run(command, cwd=self.clone)
        return code, output, time.monotonic() - started


def run(log: Log) -> list[Check]:
    for port in PORTS:
        if _answers(port):
            raise Skipped(f"port {port} of this machine is in use; a demo that runs ends by `make reset`")
    with _ordinary_user(log) as user:
        before = _files(user.home)
        checks, output = _demo(log, user)
        if checks[0].state == "passed":
            checks += [*_pages(), _grpc(log, user), _pasted(log, user, output)]
        return checks + _demo_again(log, user) + _reset(log, user, before)


def _demo(log: Log, user: User) -> tuple[list[Check], str]:
    code, output, seconds = user.make(log, "demo")
    return [verdict(_timed("make demo", seconds, FIRST_RUN), not code, f"exit code {code}")], output


def _pasted(log: Log, user: User, output: str) -> Check:
    """What the demo tells its user to try works as it stands there."""
    commands = sorted(set(re.findall(r"^ +((?:curl|/\S*grpcurl) .+)$", output, re.MULTILINE)))
    failed = [command for command in commands if log.run([*user.prefix, "sh", "-c", command], cwd=user.clone)[0]]
    good = any("grpcurl" in command for command in commands) and len(commands) >= len(PAGES) and not failed
    return verdict("the commands that make demo prints", good, f"{len(commands)} found, failed: {failed}")


def _timed(name: str, seconds: float, promised: int) -> str:
    line = f"{name} ({seconds:.0f} s of {promised} s)"
    print(f"   {line}", flush=True)
    return line


def _demo_again(log: Log, user: User) -> list[Check]:
    code, output, seconds = user.make(log, "demo")
    changes = re.findall(r"^\S+ +: ok=.*?(changed=\d+)", output, re.MULTILINE)
    return [
        verdict(_timed("make demo again", seconds, LATER_RUNS), not code, f"exit code {code}"),
        verdict("it changes nothing", set(changes) == {"changed=0"}, ", ".join(changes) or "no recap"),
    ]


def _reset(log: Log, user: User, before: set[str]) -> list[Check]:
    code = user.make(log, "reset")[0]
    left = sorted(_files(user.home) - before)
    running = [f"{pid} ({read(Path('/proc', str(pid), 'comm')).strip()})" for pid in processes_of(user.home)]
    open_ports = [str(port) for port in PORTS if _answers(port)]
    log.write("\n".join(["left by make reset:", *left, *running, *open_ports]))
    return [
        verdict("make reset", not code, f"exit code {code}"),
        verdict("no file is left", not left, f"{len(left)} files, such as {', '.join(left[:3])}"),
        verdict("no process is left", not running, ", ".join(running)),
        verdict("no port is left open", not open_ports, ", ".join(open_ports)),
    ]


def _pages() -> list[Check]:
    return [_page(url, text) for url, text in PAGES.items()]


def _page(url: str, text: str) -> Check:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            body = response.read().decode("utf-8", "replace")
    except OSError as error:
        return Check(url, "failed", str(error))
    return verdict(url, text in body, f"it answers {body[:100]!r}")


def _grpc(log: Log, user: User) -> Check:
    """The content comes back, and the header ``hostname`` shows every replica in turn."""
    protos = user.clone / "roles" / "images" / "files" / "echo-grpc"
    call = [BIN / "grpcurl", "-insecure", "-v", "-import-path", protos, "-proto", "echo.proto"]
    message = '{"content": "there and back"}'
    outputs = [log.run([*call, "-d", message, "localhost:8443", "api.Echo/Echo"])[1] for _call in range(CALLS)]
    good = all('"content": "there and back"' in output for output in outputs)
    hosts = {host for output in outputs for host in re.findall(r"^hostname: (\S+)", output, re.MULTILINE)}
    return verdict("echo-grpc over TLS", good and len(hosts) == 3, f"hostnames: {sorted(hosts)}, content: {good}")


@contextmanager
def _ordinary_user(log: Log) -> Iterator[User]:
    with temporary_folder() as folder:
        folder.chmod(0o755)
        home = folder / "home"
        name = f"mesh-test-{os.getpid()}"
        try:
            become = _add_user(log, name, home) if os.geteuid() == 0 else []
            prefix = [*become, "env", "-i", *_environment(home)]
            user = User(home, prefix, _usable_python(log, prefix))
            user.clone.mkdir()
            copy_checkout(user.clone)
            if become:
                log.must(["chown", "-R", name, home])
            yield user
        finally:
            if os.geteuid() == 0:
                subprocess.run(["userdel", "--force", name], capture_output=True, check=False)


def _add_user(log: Log, name: str, home: Path) -> list[str]:
    """Words that make a command a new user's. Only root can add one; anybody else is an ordinary user already."""
    for program in ("useradd", "runuser"):
        if not shutil.which(program):
            raise Skipped(f"there is no {program} on this machine to become an ordinary user")
    log.must(["useradd", "--create-home", "--home-dir", home, "--shell", "/bin/bash", name])
    return ["runuser", "-u", name, "--"]


def _environment(home: Path) -> list[str]:
    passed_on = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    # Like on a new machine, nothing is downloaded yet.
    own = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PIP_CACHE_DIR": home / ".cache" / "pip"}
    variables = {**make_home(home), **own, **passed_on}
    return [f"{name}={value}" for name, value in variables.items()]


def _usable_python(log: Log, prefix: list[str]) -> str:
    """The system's python3, as in the README; else the one that runs this, if the user may read it."""
    able = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
    for python in ("/usr/bin/python3", os.path.realpath(sys.executable)):
        if not log.run([*prefix, python, "-c", able], cwd=Path("/"))[0]:
            return python
    raise Skipped("no Python >= 3.11 with venv for ordinary users; on Debian and Ubuntu: apt-get install python3-venv")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _files(home: Path) -> set[str]:
    """The files of a home, but for the clone and what pip, npm and Ansible keep for themselves."""
    kept = ("sidecar.mesh", ".ansible", ".cache", ".npm")
    names = (path.relative_to(home) for path in home.rglob("*") if not path.is_dir() or path.is_symlink())
    return {str(name) for name in names if name.parts[0] not in kept}
