"""supervisord, which runs the components: start and stop each by its name."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import Faults, SupervisorTransport

from cluster import cgroups
from cluster.places import STATE

CONFIGURATION = STATE / "supervisord.conf"
SOCKET = STATE / "supervisord.sock"
LOGS = STATE / "logs"


def running() -> bool:
    """Whether supervisord is there."""
    try:
        with _server() as supervisor:
            return bool(supervisor.getPID())
    except OSError:
        return False


def launch(commands: Mapping[str, Sequence[str]], programs: Path) -> None:
    """Launch supervisord, which starts nothing by itself; if it runs, stop what is to run otherwise than before."""
    LOGS.mkdir(parents=True, exist_ok=True)
    sections = [
        "[supervisord]",
        f"pidfile={STATE}/supervisord.pid",
        f"logfile={LOGS}/supervisord.log",
        f"directory={STATE}",
        # containerd finds its shim, and kubelets their tools, on PATH.
        f'environment=PATH="{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"',
        "[unix_http_server]",
        f"file={SOCKET}",
        "chmod=0700",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "[supervisorctl]",
        f"serverurl=unix://{SOCKET}",
    ]
    for name, command in commands.items():
        sections += [
            f"[program:{name}]",
            f"command={shlex.join(command).replace('%', '%%')}",
            "autostart=false",
            "autorestart=true",
            # Each tries again until what it needs is there.
            "startretries=1000",
            "redirect_stderr=true",
            f"stdout_logfile={LOGS}/{name}.log",
            "stdout_logfile_maxbytes=20MB",
            "stdout_logfile_backups=1",
        ]
    CONFIGURATION.write_text("\n".join(sections) + "\n")
    if running():
        with _server() as supervisor:
            (added, changed, removed), *_rest = supervisor.reloadConfig()
            for name in [*changed, *removed]:
                supervisor.stopProcessGroup(name)
                supervisor.removeProcessGroup(name)
            for name in [*added, *changed]:
                supervisor.addProcessGroup(name)
        return
    command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(CONFIGURATION)]
    subprocess.run(command, check=True, preexec_fn=cgroups.enter)


def start(*names: str) -> None:
    """Start components, all at once; one that runs already keeps running."""
    with _server() as supervisor:
        for name in names:
            try:
                supervisor.startProcess(name, False)
            except Fault as problem:
                if problem.faultCode != Faults.ALREADY_STARTED:
                    raise RuntimeError(f"{name} does not start: {problem.faultString}. Logs: {LOGS}") from problem


def stop(*names: str) -> None:
    """Stop components; containers of a stopped containerd go on."""
    with _server() as supervisor:
        for name in names:
            supervisor.stopProcess(name)


def states() -> dict[str, str]:
    """The state of each component, as supervisord calls it; of none if it does not run."""
    if not running():
        return {}
    with _server() as supervisor:
        return {each["name"]: each["statename"] for each in supervisor.getAllProcessInfo()}


@contextmanager
def _server() -> Iterator[Any]:
    transport = SupervisorTransport(serverurl=f"unix://{SOCKET}")
    with ServerProxy("http://supervisord", transport=transport) as server:
        yield server.supervisor
