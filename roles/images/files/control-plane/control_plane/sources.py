# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the configuration comes from: the files of every proxy, and the replicas there are."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import kube, names
from ansible_collections.sidecar.mesh.plugins.module_utils.aggregated import Replicas, asked_for, read, sent
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import content_hash
from ansible_collections.sidecar.mesh.plugins.module_utils.ordering import Resources

from control_plane import cluster as watched
from control_plane import machine
from control_plane.logs import log
from control_plane.metrics import Metrics
from control_plane.store import Store

Folders = dict[str, tuple[str, dict[str, str]]]
"""``{proxy: (workload, files)}``."""

POLL_SECONDS = 0.05
GATHER_SECONDS = 0.002
"""In which what changes together becomes one change."""


class Source:
    """Puts into the store what it is given, and remembers what is wrong with it; what was served before still is."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self.problem: str | None = None
        self.incomplete: str | None = None
        """What of it there was not; the rest is served."""
        self._store = store
        self._metrics = metrics

    def give(self, proxies: dict[str, Any], *, whole: bool, removed: set[str] | None = None) -> bool:
        """Whether it is served now. ``whole``: all other proxies are gone."""
        try:
            change = self._store.set(proxies) if whole else self._store.update(proxies, removed or set())
        except ValueError as exc:  # EncodeError is one
            self.failed(str(exc))
            return False
        self.problem = self.incomplete
        self._metrics.configuration_failed = self.problem is not None
        self._metrics.configurations["loaded"] += 1
        log(
            "configuration",
            version=self._store.version,
            proxies=len(self._store.proxies),
            changed=len(change.changed),
            removed=len(change.removed),
            at_once=change.at_once,
        )
        return True

    def failed(self, problem: str) -> None:
        self.problem = problem
        self._metrics.configuration_failed = True
        self._metrics.configurations["failed"] += 1
        log("configuration", error=problem)


class MeshSource(Source):
    """The files of every proxy, and the replicas of the services that they name."""

    def __init__(self, store: Store, metrics: Metrics, suffix: str) -> None:
        super().__init__(store, metrics)
        self._suffix = suffix
        self._folders: Folders | None = None
        self._replicas: Replicas | None = None
        self._read: dict[str, tuple[str, Resources, set[str]]] = {}
        """By proxy: the hash of its files, what they say, and the names whose replicas it needs."""
        self._given: dict[str, Any] = {}
        self._waiting: asyncio.TimerHandle | None = None
        self._stale: set[str] = set()

    def folders(self, found: Folders) -> None:
        old = self._folders or {}
        self._folders = found
        self._changed({name for name in found if old.get(name) != found[name]} | (old.keys() - found.keys()))

    def replicas(self, found: Replicas) -> None:
        old = self._replicas or {}
        self._replicas = found
        moved = {name for name in old.keys() | found.keys() if old.get(name) != found.get(name)}
        self._changed({proxy for proxy, (_hash, _read, needed) in self._read.items() if needed & moved})

    def _changed(self, proxies: set[str]) -> None:
        self._stale |= proxies
        if self._folders is None or self._replicas is None or self._waiting:
            return
        if self._stale or not self._store.is_loaded:
            self._waiting = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._load)

    def _load(self) -> None:
        self._waiting = None
        folders, stale = self._folders or {}, self._stale
        gone = {name for name in stale if name not in folders}
        try:
            made = {name: self._made(name, *folders[name]) for name in sorted(stale - gone)}
        except ValueError as exc:
            self.failed(str(exc))
            return
        if self.give(made, whole=not self._store.is_loaded, removed=gone):
            self._stale = set()
            for name in gone:
                self._read.pop(name, None)

    def _made(self, name: str, workload: str, files: dict[str, str]) -> dict[str, Any]:
        content = content_hash(files)
        if self._read.get(name, ("",))[0] != content:
            try:
                found = read(files)
            except ValueError as exc:
                raise ValueError(f"proxy {name}: {exc}") from exc
            self._read[name] = content, found, asked_for(found, self._suffix)
        resources = sent(self._read[name][1], self._replicas or {}, self._suffix)
        return {"workload": workload, "content": content, "resources": resources}


# On Kubernetes


async def follow_cluster(source: MeshSource, cluster: kube.Cluster, namespace: str, mesh: str, suffix: str) -> None:
    """Has threads tell the source what changes in the cluster, until it is cancelled."""
    loop, stopped = asyncio.get_running_loop(), threading.Event()

    def config_maps(found: watched.Objects) -> None:
        folders = watched.folders(found.values())
        loop.call_soon_threadsafe(source.folders, folders)

    def slices(found: watched.Objects) -> None:
        replicas = watched.replicas(found.values(), suffix)
        loop.call_soon_threadsafe(source.replicas, replicas)

    followed = ((watched.CONFIG_MAPS, f"{names.MESH_LABEL}={mesh}", config_maps), (watched.SLICES, "", slices))
    for kind, selector, tell in followed:
        arguments = (cluster, kind, namespace, selector, tell, stopped)
        threading.Thread(target=watched.follow, args=arguments, name=kind.plural, daemon=True).start()
    try:
        await asyncio.Event().wait()
    finally:
        stopped.set()


# On one machine


async def follow_machine(source: MeshSource, published: Path, zone: Path) -> None:
    """Tells the source what is published on this machine, until it is cancelled. Raises OSError without inotify."""
    known: Folders = {}

    def look() -> None:
        nonlocal known
        try:
            replicas, wanted = machine.replicas(zone), machine.published(published)
        except (OSError, ValueError) as exc:
            source.failed(str(exc))
            return
        found: Folders = {}
        for name, item in wanted.items():
            if name in known and content_hash(known[name][1]) == item["content"]:
                found[name] = known[name]
            elif (files := machine.folder(item["folder"], item["content"])) is not None:
                found[name] = item["workload"], files
        torn = sorted(wanted.keys() - found.keys())
        source.incomplete = f"not as they were published: {', '.join(torn)}; run the playbook again" if torn else None
        known = {**{name: known[name] for name in torn if name in known}, **found}
        source.replicas(replicas)
        source.folders(known)

    end = machine.follow(look, published, zone)
    look()
    try:
        await asyncio.Event().wait()
    finally:
        end()


# In a file


class FileSource(Source):
    """Resources that others have made, as JSON: ``{proxy: {"workload": name, "resources": ordering.Resources}}``."""

    def __init__(self, store: Store, metrics: Metrics, path: Path) -> None:
        super().__init__(store, metrics)
        self._path = path
        self._seen: tuple[int, ...] = ()

    async def follow(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(POLL_SECONDS)

    def look(self) -> None:
        """Reads the file if it changed since the last look."""
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_size, found.st_ino
            if stamp != self._seen:
                self._seen = stamp
                self._load()
        except OSError as exc:
            if self._seen or self.problem is None:
                self.failed(str(exc))
            self._seen = ()

    def _load(self) -> None:
        try:
            proxies = _mesh(json.loads(self._path.read_bytes()))
        except (ValueError, RecursionError) as exc:
            self.failed(f"{self._path}: {exc}")
            return
        self.give(proxies, whole=True)


def _mesh(data: Any) -> dict[str, Any]:
    """The data of a file, checked as far as it is looked into. Raises ValueError."""
    if not isinstance(data, dict):
        raise ValueError("is not a dictionary of proxies")
    for name, item in data.items():
        kinds = item.get("resources") if isinstance(item, dict) else None
        if not isinstance(kinds, dict) or not isinstance(item.get("workload"), str):
            raise ValueError(f"proxy {name}: has no workload, or no resources")
        if not all(isinstance(each, dict) for each in kinds.values()):
            raise ValueError(f"proxy {name}: resources are dictionaries by name")
    return data
