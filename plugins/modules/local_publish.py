#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: local_publish
short_description: Publish Envoy configurations and DNS records to a mesh that serves
version_added: 0.1.0
description:
  - Writes the config folders of proxies and the records of the mesh's DNS server, each file by an atomic rename.
  - Proxies that run take a change in steps, so that no request meets a route without its cluster or a port nobody
    listens on yet. After each step every proxy concerned must have accepted its files before the next step begins.
  - With O(stage=running) it returns when no proxy uses an address any more that left the zone, so that what listens
    there can stop.
  - When an Envoy refuses a file, the former configuration is put back in the same way, and the module fails with
    Envoy's reason.
  - With O(control_plane) the same folders are what the control plane sends, and it tells what Envoys have accepted.
options:
  stage:
    description:
      - V(new) writes the folders of proxies that do not run, and adds DNS names nobody had before.
      - V(running) brings proxies that run and all DNS records to what is given.
    type: str
    choices: [new, running]
    required: true
  proxies:
    description: Every proxy of the mesh, as filter P(sidecar.mesh.mesh_files#filter) lists them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the proxy.
        type: str
        required: true
      folder:
        description: Its config folder.
        type: path
        required: true
      admin:
        description: Address and port of its admin interface.
        type: str
        required: true
      files:
        description: Text of every file by its name.
        type: dict
        required: true
      workload:
        description: Service or front proxy it belongs to; not used here.
        type: str
      kind:
        description: V(sidecar) or V(front); not used here.
        type: str
  root:
    description: Folder that holds the config folders.
    type: path
    required: true
  zone_file:
    description: File with the records of the mesh's DNS server.
    type: path
    required: true
  zone:
    description: Content of the file; C(records) maps names to lists of addresses.
    type: dict
    required: true
  control_plane:
    description: What sends proxies their configuration, where they do not read it from their folders.
    type: dict
    suboptions:
      wanted:
        description:
          - Whether the mesh is to have it. Else it is told of changes as long as O(control_plane.published) is there,
            for those that still run with it.
        type: bool
        required: true
      published:
        description: The file that tells it of folders.
        type: path
        required: true
      status:
        description: Its address and port for questions.
        type: str
        required: true
      proxies:
        description:
          - What it is told instead of O(proxies), as C(published_before) of a call that is to be undone.
        type: dict
  hold:
    description:
      - With O(stage=running), names of sidecars whose application runs as it was before and is still to be restarted.
      - They keep what that application uses, which are its own cluster and its egress listeners, and nothing of theirs
        is removed. While there is one, names that are gone stay in the zone.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds in which proxies must have accepted one step, and stopped using addresses that left the zone.
    type: int
    default: 60
author:
  - sidecar.mesh contributors (@sidecar-mesh)
attributes:
  check_mode:
    description: Reports what would change, without a change.
    support: full
  diff_mode:
    description: Shows every file that changes.
    support: full
seealso:
  - plugin: sidecar.mesh.mesh_files
    plugin_type: filter
  - module: sidecar.mesh.envoy_validate
"""

EXAMPLES = r"""
- name: Publish a change to the proxies that run
  sidecar.mesh.local_publish:
    stage: running
    proxies: "{{ model | sidecar.mesh.mesh_files }}"
    root: /home/me/.local/state/sidecar-mesh/demo/proxies
    zone_file: /home/me/.local/state/sidecar-mesh/demo/zone.json
    zone:
      ttl: 1
      domain: cluster.local
      records:
        service-a.default.svc.cluster.local: [127.10.20.1, 127.10.20.2]
"""

RETURN = r"""
published:
  description: Files that changed, by proxy.
  type: dict
  returned: always
  sample:
    front-1: [rds.front_8080.yaml]
created:
  description: Config folders that were not there, and O(zone_file) if it was not.
  type: list
  elements: str
  returned: with O(stage=new)
  sample: [/home/me/.local/state/sidecar-mesh/demo/proxies/service-a-3]
zone_before:
  description: Content of O(zone_file) as it was; empty where there was none.
  type: dict
  returned: with O(stage=new)
  sample: {ttl: 1, domain: cluster.local, records: {service-a.default.svc.cluster.local: [127.10.20.1]}}
published_before:
  description: What O(control_plane.published) said of proxies; empty where there was none.
  type: dict
  returned: with O(stage=new)
  sample: {}
unused:
  description: Config folders under O(root) that belong to no proxy given.
  type: list
  elements: str
  returned: success
  sample: [/home/me/.local/state/sidecar-mesh/demo/proxies/service-a-3]
"""

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sidecar.mesh.plugins.module_utils import admin as envoy_admin
from ansible_collections.sidecar.mesh.plugins.module_utils import control_plane
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import CLUSTERS_FILE
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import HAS_YAML
from ansible_collections.sidecar.mesh.plugins.module_utils.names import CONTROL_PLANE_CLUSTER, OWN_CLUSTERS
from ansible_collections.sidecar.mesh.plugins.module_utils.publishing import held, steps, zone_steps

Proxy = dict[str, Any]
Files = dict[str, str]
Move = tuple[Proxy, Files, Files]
"""A proxy with the files of its folder before and after."""
POLL_SECONDS = 0.02
PROBLEM_SECONDS = 1.0


class RefusedError(Exception):
    """Envoys did not take a step; the text has a line for each of them."""


def read_folder(folder: str) -> dict[str, str]:
    """The files of a config folder; empty where there is none."""
    if not Path(folder).is_dir():
        return {}
    return {path.name: read(path) for path in Path(folder).iterdir() if not path.name.startswith(".")}


def read(path: str | Path) -> str:
    """The text of a file; empty where there is none."""
    with contextlib.suppress(FileNotFoundError):
        return Path(path).read_text(encoding="utf-8")
    return ""


def write(path: str | Path, text: str) -> None:
    """Replaces a file in one rename, which is what Envoy and the DNS server wait for."""
    path = Path(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text(text, encoding="utf-8")
    draft.rename(path)


def write_folder(folder: str, old: dict[str, str], new: dict[str, str]) -> None:
    """Files first that others refer to; deletions last."""
    for name in sorted(new, key=lambda name: (name.startswith(("lds.", "cds.")), name)):
        if old.get(name) != new[name]:
            write(Path(folder, name), new[name])
    for name in old.keys() - new.keys():
        Path(folder, name).unlink()


def await_step(
    proxy: Proxy, before: dict[str, str], now: dict[str, str], counts: dict[str, int], timeout: float
) -> str:
    """Waits until one proxy runs what its folder holds; text that says why when it does not."""
    versions = envoy_admin.file_versions(now)
    changed = [name for name in versions if before.get(name) != now[name]]
    deadline = time.monotonic() + timeout
    late: list[str] = changed
    while time.monotonic() < deadline:
        try:
            stats = envoy_admin.subscription_stats(proxy["admin"])
        except envoy_admin.UnreachableError:
            return f"{proxy['name']}: stopped answering on {proxy['admin']} while it took {', '.join(changed)}"
        late = envoy_admin.pending(stats, versions)
        refused = [name for name in late if envoy_admin.refusals(stats, name) > counts.get(name, 0)]
        if refused:
            reasons = envoy_admin.refusal_reasons(proxy["admin"]) or ["see its log"]
            return f"{proxy['name']}: Envoy refused {', '.join(refused)}: {'; '.join(reasons)}"
        if not late:
            return ""
        time.sleep(POLL_SECONDS)
    return f"{proxy['name']}: {', '.join(late)} not active after {timeout:g} s"


def refused_before(proxy: Proxy, now: Files) -> dict[str, int] | None:
    """How often a proxy that reads files has refused each of them so far; None where nobody answers."""
    try:
        stats = envoy_admin.subscription_stats(proxy["admin"])
    except envoy_admin.UnreachableError:
        return None
    return {name: envoy_admin.refusals(stats, name) for name in now}


def sent_by(pool: ThreadPoolExecutor, sender: dict[str, Any], proxies: list[Proxy]) -> set[str]:
    """Names of the proxies that were started with a control plane, and do not read their files."""

    def is_sent(proxy: Proxy) -> bool:
        try:
            return CONTROL_PLANE_CLUSTER in envoy_admin.cluster_hosts(proxy["admin"])
        except envoy_admin.UnreachableError:
            return False

    asked = proxies if sender else []
    return {proxy["name"] for proxy, is_one in zip(asked, pool.map(is_sent, asked), strict=True) if is_one}


def await_sent(moves: list[Move], status: str, timeout: float) -> list[str]:
    """Waits until proxies have what the control plane was told of; a text for each that has not."""
    begun, deadline = time.monotonic(), time.monotonic() + timeout
    wanted = {proxy["name"]: now for proxy, _before, now in moves}
    while True:
        entries, problem = control_plane.connected_here(status)
        # At first it may be of the configuration before.
        if problem and time.monotonic() > begun + PROBLEM_SECONDS:
            return [f"control plane: {problem}"]
        late = {name: control_plane.late(entries[name], now) for name, now in wanted.items() if name in entries}
        refused = {name: control_plane.refused(entries[name]) for name in late}
        # What a proxy has refused before is no answer to what it is sent now.
        answers = [
            f"{name}: Envoy refused {what}: {refused[name][what]}"
            for name, found in late.items()
            for what in found
            if what in refused[name]
        ]
        if answers or (late.keys() == wanted.keys() and not any(late.values())):
            return answers
        if time.monotonic() > deadline:
            missing = [f"{name}: is not connected to the control plane" for name in wanted if name not in late]
            missing += [f"{name}: has not {', '.join(found)}" for name, found in late.items() if found]
            return [f"{text} after {timeout:g} s" for text in missing]
        time.sleep(POLL_SECONDS)


def take_step(
    pool: ThreadPoolExecutor, moves: list[Move], sent: set[str], sender: dict[str, Any], timeout: float
) -> list[str]:
    """Writes one step of all proxies that move and waits for it; a text for each that does not take it.

    ``sent``: those that a control plane sends it.
    """
    by_control_plane = [move for move in moves if move[0]["name"] in sent]
    by_files = [move for move in moves if move[0]["name"] not in sent]
    counts = list(pool.map(lambda move: refused_before(move[0], move[2]), by_files))
    for proxy, before, now in moves:
        write_folder(proxy["folder"], before, now)
    tell(sender, {proxy["name"]: control_plane.published(proxy, now) for proxy, _before, now in moves})

    def wait(move: Move, count: dict[str, int] | None) -> str:
        return "" if count is None else await_step(*move, count, timeout)

    waiting = [pool.submit(wait, *pair) for pair in zip(by_files, counts, strict=True)]
    late = await_sent(by_control_plane, sender["status"], timeout) if by_control_plane else []
    return late + [text for future in waiting if (text := future.result())]


def publish(
    pool: ThreadPoolExecutor, plans: list[tuple[Proxy, list[Files]]], sender: dict[str, Any], timeout: float
) -> None:
    """Takes all proxies through their steps together. ``plans``: each proxy with its folder's states, first to last.

    Raises RefusedError.
    """
    sent = sent_by(pool, sender, [proxy for proxy, _states in plans])
    for number in range(1, max((len(states) for _rest, states in plans), default=1)):
        moves = [(proxy, states[number - 1], states[number]) for proxy, states in plans if len(states) > number]
        answers = take_step(pool, [move for move in moves if move[1] != move[2]], sent, sender, timeout)
        if answers:
            raise RefusedError("\n".join(answers))


def put_back(
    pool: ThreadPoolExecutor, old: dict[str, Files], proxies: list[Proxy], sender: dict[str, Any], timeout: float
) -> None:
    """The former files again, in the same careful order; whatever refuses them is left with what it has."""
    plans = [
        (proxy, [now, *steps(now, old[proxy["name"]])]) for proxy in proxies for now in [read_folder(proxy["folder"])]
    ]
    with contextlib.suppress(RefusedError):
        publish(pool, plans, sender, timeout)
    for proxy in proxies:
        write_folder(proxy["folder"], read_folder(proxy["folder"]), old[proxy["name"]])
    tell(sender, {proxy["name"]: control_plane.published(proxy, old[proxy["name"]]) for proxy in proxies})


def await_retired(pool: ThreadPoolExecutor, proxies: list[Proxy], addresses: set[str], timeout: float) -> list[str]:
    """Waits until no proxy uses one of the addresses; the proxies that still do."""

    def uses(proxy: Proxy) -> bool:
        try:
            hosts = envoy_admin.cluster_hosts(proxy["admin"])
        except envoy_admin.UnreachableError:
            return False
        others = [used for cluster, used in hosts.items() if cluster not in OWN_CLUSTERS]
        return any(host.rpartition(":")[0] in addresses for used in others for host in used)

    deadline = time.monotonic() + timeout
    # A proxy that has its endpoints in the bootstrap lets go of them when it is restarted.
    users = [proxy for proxy in proxies if addresses and CLUSTERS_FILE in proxy["files"]]
    while users and time.monotonic() < deadline:
        users = [proxy for proxy, used in zip(users, list(pool.map(uses, users)), strict=True) if used]
        time.sleep(POLL_SECONDS * 5 if users else 0)
    return [proxy["name"] for proxy in users]


def zone_text(zone: dict[str, Any], records: dict[str, Any]) -> str:
    return json.dumps({**zone, "records": records}, indent=1, sort_keys=True) + "\n"


def json_data(text: str) -> dict[str, Any]:
    """What the DNS server or the control plane reads; empty where there is nothing, or nothing that it could read."""
    with contextlib.suppress(ValueError, TypeError):
        return dict(json.loads(text))
    return {}


def zone_records(text: str) -> dict[str, Any]:
    return dict(json_data(text).get("records", {}))


def zone_addresses(text: str) -> set[str]:
    return {address for addresses in zone_records(text).values() for address in addresses}


def file_diff(path: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": path, "after_header": path, "before": before, "after": after}


def diffs(changes: list[Move]) -> list[dict[str, str]]:
    """One entry a changed file, whole files before and after."""
    return [
        file_diff(f"{proxy['folder']}/{name}", old.get(name, ""), new.get(name, ""))
        for proxy, old, new in changes
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def run_new(module: AnsibleModule, proxies: list[Proxy], running: set[str]) -> dict[str, Any]:
    """Folders of proxies that do not run, and names nobody had. A control plane that is new is told, too."""
    params = module.params
    changes = [
        (proxy, read_folder(proxy["folder"]), proxy["files"]) for proxy in proxies if proxy["name"] not in running
    ]
    changes = [change for change in changes if change[1] != change[2]]
    zone_before = read(params["zone_file"])
    early = zone_steps(zone_records(zone_before), params["zone"]["records"])[0]
    zone_after = zone_text(params["zone"], early)
    sender = sender_of(params)
    published_before = announced(sender)
    if not module.check_mode:
        for proxy, old, new in changes:
            write_folder(proxy["folder"], old, new)
        if zone_before != zone_after:
            write(params["zone_file"], zone_after)
        idle = [proxy for proxy in proxies if proxy["name"] not in running]
        tell(sender, {proxy["name"]: control_plane.published(proxy, proxy["files"]) for proxy in idle})
    created = [proxy["folder"] for proxy, old, _new in changes if not old]
    created += [sender["published"]] if sender and not published_before else []
    created += [] if zone_before else [params["zone_file"]]
    return {
        **report(module, changes, zone_before, zone_after),
        "created": created,
        "zone_before": json_data(zone_before),
        "published_before": published_before,
    }


def run_running(
    module: AnsibleModule, pool: ThreadPoolExecutor, proxies: list[Proxy], running: set[str]
) -> dict[str, Any]:
    """Everything to what is given, in order."""
    params = module.params
    live = [proxy for proxy in proxies if proxy["name"] in running]
    changes = [(proxy, read_folder(proxy["folder"]), proxy["files"]) for proxy in live]
    changes = [(proxy, old, held(old, new) if proxy["name"] in params["hold"] else new) for proxy, old, new in changes]
    wanted = [(proxy, new) for proxy, _old, new in changes]
    changes = [change for change in changes if change[1] != change[2]]
    zone_before = read(params["zone_file"])
    during = zone_steps(zone_records(zone_before), params["zone"]["records"])[1]
    zone_after = zone_text(params["zone"], during if params["hold"] else params["zone"]["records"])
    result = report(module, changes, zone_before, zone_after)
    if not module.check_mode:
        transition(module, pool, changes, zone_before, zone_after)
        result["changed"] |= settle(module, pool, wanted)
        retired = zone_addresses(zone_before) - zone_addresses(zone_after)
        users = await_retired(pool, live, retired, params["timeout"])
        if users:
            gone = ", ".join(sorted(retired))
            module.fail_json(msg=f"Still using {gone} after {params['timeout']} s: {', '.join(users)}", **result)
    return result


def transition(
    module: AnsibleModule,
    pool: ThreadPoolExecutor,
    changes: list[Move],
    zone_before: str,
    zone_after: str,
) -> None:
    params = module.params
    sender = sender_of(params)
    during = zone_text(params["zone"], zone_steps(zone_records(zone_before), params["zone"]["records"])[1])
    if zone_before != during:
        write(params["zone_file"], during)
    try:
        publish(pool, [(proxy, [old, *steps(old, new)]) for proxy, old, new in changes], sender, params["timeout"])
    except RefusedError as exc:
        put_back(
            pool,
            {proxy["name"]: old for proxy, old, new in changes},
            [proxy for proxy, old, new in changes],
            sender,
            params["timeout"],
        )
        if zone_before != during:
            write(params["zone_file"], zone_before)
        module.fail_json(msg=f"The former configuration serves on, because Envoy did not take the new one:\n{exc}")
    if during != zone_after:
        write(params["zone_file"], zone_after)


def sender_of(params: dict[str, Any]) -> dict[str, Any]:
    """Where the control plane is that has to be told; empty where there is none."""
    sender = params["control_plane"] or {}
    return dict(sender) if sender and (sender["wanted"] or Path(sender["published"]).exists()) else {}


def announced(sender: dict[str, Any]) -> dict[str, Any]:
    """What the control plane has been told, by proxy."""
    return dict(json_data(read(sender["published"])).get("proxies", {})) if sender else {}


def tell(sender: dict[str, Any], proxies: dict[str, Any], kept: set[str] | None = None) -> bool:
    """Has the control plane, if there is one, know these proxies, and of the others all or those that are ``kept``;
    whether that is news to it."""
    if not sender:
        return False
    before = announced(sender)
    after = {**{name: item for name, item in before.items() if kept is None or name in kept}, **proxies}
    if sender["proxies"] is not None:
        after = sender["proxies"]
    news = before != after or not Path(sender["published"]).exists()
    if news:
        write(sender["published"], json.dumps({"proxies": after}, indent=1, sort_keys=True) + "\n")
    return news


def settle(module: AnsibleModule, pool: ThreadPoolExecutor, wanted: list[tuple[Proxy, Files]]) -> bool:
    """Tells the control plane in the end what all proxies that run have; whether that was news to it, as it is after a
    run that was interrupted."""
    params = module.params
    sender, given = sender_of(params), {proxy["name"] for proxy in params["proxies"]}
    if not tell(sender, {proxy["name"]: control_plane.published(proxy, files) for proxy, files in wanted}, given):
        return False
    sent = sent_by(pool, sender, [proxy for proxy, _files in wanted])
    moves = [(proxy, files, files) for proxy, files in wanted if proxy["name"] in sent]
    late = await_sent(moves, sender["status"], params["timeout"]) if moves else []
    if late:
        module.fail_json(msg="\n".join(late))
    return True


def unused_folders(root: str, proxies: list[Proxy]) -> list[str]:
    """Folders under the root that belong to no proxy."""
    kept = {proxy["folder"] for proxy in proxies}
    folders = Path(root).iterdir() if Path(root).is_dir() else []
    return sorted(str(folder) for folder in folders if str(folder) not in kept)


def report(
    module: AnsibleModule,
    changes: list[Move],
    zone_before: str,
    zone_after: str,
) -> dict[str, Any]:
    published = {
        proxy["name"]: sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        for proxy, old, new in changes
    }
    result: dict[str, Any] = {"changed": bool(changes) or zone_before != zone_after, "published": published}
    if module._diff:
        zone = [file_diff(module.params["zone_file"], zone_before, zone_after)] if zone_before != zone_after else []
        result["diff"] = [*diffs(changes), *zone]
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "stage": {"type": "str", "choices": ["new", "running"], "required": True},
            "proxies": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "folder": {"type": "path", "required": True},
                    "admin": {"type": "str", "required": True},
                    "files": {"type": "dict", "required": True},
                    "workload": {"type": "str"},
                    "kind": {"type": "str"},
                },
            },
            "root": {"type": "path", "required": True},
            "zone_file": {"type": "path", "required": True},
            "zone": {"type": "dict", "required": True},
            "control_plane": {
                "type": "dict",
                "options": {
                    "wanted": {"type": "bool", "required": True},
                    "published": {"type": "path", "required": True},
                    "status": {"type": "str", "required": True},
                    "proxies": {"type": "dict"},
                },
            },
            "hold": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    if not HAS_YAML:
        module.fail_json(msg=missing_required_lib("PyYAML"))
    proxies = module.params["proxies"]
    with ThreadPoolExecutor(max_workers=16) as pool:
        alive = pool.map(lambda proxy: envoy_admin.runs(proxy["admin"]), proxies)
        running = {proxy["name"] for proxy, answers in zip(proxies, list(alive), strict=True) if answers}
        if module.params["stage"] == "new":
            result = run_new(module, proxies, running)
        else:
            result = run_running(module, pool, proxies, running)
    module.exit_json(unused=unused_folders(module.params["root"], proxies), **result)


if __name__ == "__main__":
    main()
