# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the configuration comes from: the files of every proxy, and the replicas there are."""

import asyncio
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import kube, names
from ansible_collections.sidecar.mesh.plugins.module_utils.aggregated import (
    Asked,
    Replicas,
    asked_for,
    assignments,
    read,
    sent,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.ordering import ENDPOINTS

from control_plane import cluster as watched
from control_plane import machine, snapshots
from control_plane.encode import encode
from control_plane.folders import Folder, Folders
from control_plane.logs import log
from control_plane.metrics import Metrics
from control_plane.snapshots import Snapshot
from control_plane.store import Proxy, Store

POLL_SECONDS = 0.05
GATHER_SECONDS = 0.002
"""In which what changes together becomes one change."""
BUSY_SECONDS = 0.02
"""How long everybody else waits at most while configurations are made."""


class Source:
    """Puts into the store what it is given, and remembers what is wrong with it; what was served before still is."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self.problem: str | None = None
        self.incomplete: str | None = None
        """What of it there was not; the rest is served."""
        self._store = store
        self._metrics = metrics

    def give(self, proxies: dict[str, Proxy], *, whole: bool, removed: set[str] | None = None) -> None:
        """Serves it. ``whole``: all other proxies are gone."""
        change = self._store.set(proxies) if whole else self._store.update(proxies, removed or set())
        self.problem = self.incomplete
        self._metrics.configuration_failed = self.problem is not None
        self._metrics.configurations["loaded"] += 1
        log(
            "configuration",
            proxies=len(self._store.proxies),
            changed=len(change.changed),
            removed=len(change.removed),
            at_once=change.at_once,
        )

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
        self._known: dict[str, _Known] = {}
        self._loading: asyncio.Task[None] | None = None
        self._stale: set[str] = set()

    def folders(self, found: Folders) -> None:
        old = self._folders or {}
        self._folders = found
        self._changed({name for name in found if old.get(name) != found[name]} | (old.keys() - found.keys()))

    def replicas(self, found: Replicas) -> None:
        old = self._replicas or {}
        self._replicas = found
        moved = {name for name in old.keys() | found.keys() if old.get(name) != found.get(name)}
        self._changed({proxy for proxy, known in self._known.items() if known.needed & moved})

    def _changed(self, proxies: set[str]) -> None:
        self._stale |= proxies
        if self._folders is None or self._replicas is None or (self._loading and not self._loading.done()):
            return
        if self._stale or not self._store.is_loaded:
            self._loading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        while self._stale or not self._store.is_loaded:
            found, stale = self._folders, self._stale
            folders, self._stale = found or {}, set()
            try:
                made = await self._made_of({name: folders[name] for name in sorted(stale & folders.keys())})
            except ValueError as exc:  # EncodeError is one
                self._stale |= stale
                self.failed(str(exc))
                return
            if found is not self._folders:
                # What is published together is sent together.
                self._stale |= stale
                continue
            gone = stale - folders.keys()
            self.give(made, whole=not self._store.is_loaded, removed=gone)
            for name in gone:
                self._known.pop(name, None)

    async def _made_of(self, folders: Folders) -> dict[str, Proxy]:
        """With time for others between two proxies, for a thousand take many seconds."""
        made: dict[str, Proxy] = {}
        begun = time.monotonic()
        for name, folder in folders.items():
            made[name] = self._made(name, folder)
            if time.monotonic() > begun + BUSY_SECONDS:
                await asyncio.sleep(0)
                begun = time.monotonic()
        return made

    def _made(self, name: str, folder: Folder) -> Proxy:
        known = self._known.get(name)
        try:
            if known is None or known.content != folder.content:
                known = self._known[name] = _Known.of(folder, self._suffix)
            made = assignments(known.asked, self._replicas or {})
            endpoints = {cluster: encode(ENDPOINTS, cluster, data) for cluster, data in made.items()}
        except ValueError as exc:
            raise ValueError(f"proxy {name}: {exc}") from exc
        snapshot = {**known.snapshot, ENDPOINTS: {**known.snapshot[ENDPOINTS], **endpoints}}
        return Proxy.of(folder.workload, snapshot, folder.content)


@dataclass(frozen=True)
class _Known:
    """What is made of a folder, whatever replicas there are."""

    content: str
    snapshot: Snapshot
    asked: dict[str, Asked]
    needed: set[str]
    """Names whose replicas it is sent."""

    @classmethod
    def of(cls, folder: Folder, suffix: str) -> "_Known":
        resources = read(folder.files)
        asked = asked_for(resources, suffix)
        made = snapshots.snapshot(sent(resources, asked))
        return cls(folder.content, made, asked, {item.name for item in asked.values()})


# On Kubernetes


async def follow_cluster(source: MeshSource, cluster: kube.Cluster, namespace: str, mesh: str, suffix: str) -> None:
    """Has threads tell the source what changes in the cluster, until it is cancelled."""
    loop, stopped = asyncio.get_running_loop(), threading.Event()

    def config_maps(found: dict[str, Folder]) -> None:
        loop.call_soon_threadsafe(source.folders, found)

    def slices(found: dict[str, Replicas]) -> None:
        loop.call_soon_threadsafe(source.replicas, watched.together(found.values()))

    def replicas(found: watched.Object) -> Replicas:
        return watched.replicas(found, suffix)

    of_mesh = f"{names.MESH_LABEL}={mesh}"
    followed: tuple[tuple[Any, ...], ...] = (
        (watched.CONFIG_MAPS, of_mesh, watched.folder, config_maps),
        (watched.SLICES, "", replicas, slices),
    )
    for kind, selector, keep, tell in followed:
        arguments = (cluster, kind, namespace, selector, keep, tell, stopped)
        threading.Thread(target=watched.follow, args=arguments, name=kind.plural, daemon=True).start()
    try:
        await asyncio.Event().wait()
    finally:
        stopped.set()


# On one machine


async def follow_machine(source: MeshSource, published: Path, zone: Path) -> None:
    """Tells the source what is published on this machine, until it is cancelled. Raises OSError without inotify."""
    known: Folders = {}

    def look(replaced: set[str]) -> None:
        for file, read_again in ((zone, tell_replicas), (published, tell_folders)):
            try:
                if file.name in replaced:
                    read_again()
            except (OSError, ValueError) as exc:
                source.failed(str(exc))

    def tell_replicas() -> None:
        source.replicas(machine.replicas(zone))

    def tell_folders() -> None:
        nonlocal known
        wanted = machine.published(published)
        found: Folders = {}
        for name, item in wanted.items():
            if name in known and known[name].content == item["content"]:
                found[name] = known[name]
            elif folder := machine.folder(item):
                found[name] = folder
        torn = sorted(wanted.keys() - found.keys())
        source.incomplete = f"not as they were published: {', '.join(torn)}; run the playbook again" if torn else None
        known = {**{name: known[name] for name in torn if name in known}, **found}
        source.folders(known)

    end = machine.follow(look, published, zone)
    look({published.name, zone.name})
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
            given = _mesh(json.loads(self._path.read_bytes()))
            proxies = {name: Proxy.of(item["workload"], _snapshot(name, item)) for name, item in given.items()}
        except (ValueError, RecursionError) as exc:
            self.failed(f"{self._path}: {exc}")
            return
        self.give(proxies, whole=True)


def _snapshot(proxy: str, item: dict[str, Any]) -> Snapshot:
    try:
        return snapshots.snapshot(item["resources"])
    except ValueError as exc:
        raise ValueError(f"proxy {proxy}: {exc}") from exc


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
