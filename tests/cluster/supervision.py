"""supervisord, which runs the components: start and stop each by its name."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import cgroups
from cluster.commands import run
from cluster.places import STATE

CONFIGURATION = STATE / "supervisord.conf"
LOGS = STATE / "logs"


def running() -> bool:
    """Whether supervisord is there."""
    return CONFIGURATION.exists() and _control("pid").returncode == 0


def launch(commands: Mapping[str, Sequence[str]], programs: Path) -> None:
    """Launch supervisord; it starts nothing by itself."""
    LOGS.mkdir(parents=True, exist_ok=True)
    sections = [
        "[supervisord]",
        f"pidfile={STATE}/supervisord.pid",
        f"logfile={LOGS}/supervisord.log",
        f"directory={STATE}",
        # containerd finds its shim, and kubelets their tools, on PATH.
        f'environment=PATH="{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"',
        "[unix_http_server]",
        f"file={STATE}/supervisord.sock",
        "chmod=0700",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "[supervisorctl]",
        f"serverurl=unix://{STATE}/supervisord.sock",
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
    command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(CONFIGURATION)]
    subprocess.run(command, check=True, preexec_fn=cgroups.enter)  # noqa: PLW1509 - one thread


def start(*names: str) -> None:
    """Start components; one that runs already keeps running."""
    done = _control("start", *names)
    if done.returncode and any("ERROR" in line and "already started" not in line for line in done.stdout.splitlines()):
        raise RuntimeError(f"{done.stdout}{done.stderr}\nLogs: {LOGS}")


def stop(*names: str) -> None:
    """Stop components; containers of a stopped containerd go on."""
    run(*_command("stop", *names))


def states() -> dict[str, str]:
    """The state of each component, as supervisord calls it."""
    return dict(line.split()[:2] for line in _control("status").stdout.splitlines())


def _control(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), capture_output=True, text=True)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "supervisor.supervisorctl", "--configuration", str(CONFIGURATION), *arguments]
