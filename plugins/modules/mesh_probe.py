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
  - Changes nothing.
options:
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
      body:
        description: Text the answer must contain.
        type: str
      hostnames:
        description: Values of the header C(hostname) that must all be seen.
        type: list
        elements: str
        default: []
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
            description: Files of which one must have it.
            type: list
            elements: path
            required: true
      healthy:
        description: Clusters whose members must all be healthy.
        type: list
        elements: dict
        default: []
        suboptions:
          proxy:
            description: Name of the proxy.
            type: str
            required: true
          admin:
            description: Address and port of its admin interface.
            type: str
            required: true
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
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sidecar.mesh.plugins.module_utils.admin import UnreachableError, request

Probe = dict[str, Any]
Answer = dict[str, Any]
REQUEST_SECONDS = 10
PAUSE_SECONDS = 0.1


def get(url: str) -> Answer:
    """One GET on a connection of its own: ``{status, body, hostname, request_id}``."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=REQUEST_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}")
        answer = connection.getresponse()
        return {
            "status": answer.status,
            "body": answer.read().decode(errors="replace"),
            "hostname": answer.getheader("hostname"),
            "request_id": answer.getheader("x-request-id"),
        }


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
    except (OSError, http.client.HTTPException, subprocess.TimeoutExpired) as exc:
        return {"status": f"{type(exc).__name__}: {exc}", "body": "", "hostname": None, "request_id": None}


def wrong(probe: Probe, answer: Answer, seen: set[str]) -> str:
    """What is missing yet; empty text when the probe has come true."""
    if answer["status"] != 200:
        return f"answered {answer['status']}{': ' if answer['body'] else ''}{answer['body'].strip()[:200]}"
    if probe["body"] and probe["body"] not in answer["body"]:
        return f"answered {answer['body'].strip()[:200]!r}, which does not contain {probe['body']!r}"
    missing = [name for name in probe["hostnames"] if name not in seen]
    if missing:
        return f"no answer from {', '.join(missing)} (seen: {', '.join(sorted(seen)) or 'none'})"
    return unlogged(probe, answer["request_id"]) or unhealthy(probe)


def unlogged(probe: Probe, request_id: str | None) -> str:
    if probe["logs"] and not request_id:
        return "the answer has no x-request-id"
    silent = [
        logs["workload"] for logs in probe["logs"] if not any(contains(path, str(request_id)) for path in logs["files"])
    ]
    return f"request {request_id} is not in the access logs of {', '.join(silent)}" if silent else ""


def contains(path: str, text: str) -> bool:
    """Whether one of a log's last lines has the text."""
    with contextlib.suppress(FileNotFoundError), Path(path).open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - (1 << 20)))
        return text.encode() in stream.read()
    return False


def unhealthy(probe: Probe) -> str:
    for item in probe["healthy"]:
        try:
            text = request(
                item["admin"], f"/stats?filter=^cluster\\.{re.escape(item['cluster'])}\\.membership_healthy$"
            )
        except UnreachableError as exc:
            return f"{item['proxy']} does not answer on its admin interface: {exc}"
        count = text.strip().rpartition(": ")[2] or "none"
        if count != str(item["members"]):
            return f"{item['proxy']} counts {count} healthy members of {item['cluster']}, not {item['members']}"
    return ""


def run(probe: Probe, timeout: float) -> tuple[bool, str]:
    """Asks until the probe comes true or time is up; the line that tells."""
    deadline = time.monotonic() + timeout
    seen: set[str] = set()
    count = 0
    problem = "was not asked"
    while True:
        answer = ask(probe)
        count += 1
        seen |= {answer["hostname"]} - {None}
        logged = answer
        problem = wrong(probe, logged, seen)
        # Access logs are flushed once a second: look again for the same request, not for another.
        while problem.startswith("request ") and time.monotonic() < deadline:
            time.sleep(PAUSE_SECONDS)
            problem = wrong(probe, logged, seen)
        if not problem:
            requests = f"{count} request{'s' if count > 1 else ''}"
            return True, f"{probe['name']} ({', '.join([requests, *sorted(seen)])})"
        if time.monotonic() > deadline:
            return False, f"{probe['name']}: {problem}"
        time.sleep(PAUSE_SECONDS if answer["status"] != 200 else 0.01)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "probes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "url": {"type": "str"},
                    "command": {"type": "list", "elements": "str", "default": []},
                    "body": {"type": "str"},
                    "hostnames": {"type": "list", "elements": "str", "default": []},
                    "logs": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "workload": {"type": "str", "required": True},
                            "files": {"type": "list", "elements": "path", "required": True},
                        },
                    },
                    "healthy": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "proxy": {"type": "str", "required": True},
                            "admin": {"type": "str", "required": True},
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
    probes = module.params["probes"]
    with ThreadPoolExecutor(max_workers=8) as pool:
        results = list(pool.map(lambda probe: run(probe, module.params["timeout"]), probes))
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
