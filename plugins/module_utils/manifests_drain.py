# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a pod leaves without losing a request.

At a pod's deletion its address leaves DNS and Services, but callers know it for a while yet. Until nobody can, all its
containers serve on: Envoy says ``connection: close`` with every answer, the application waits. Then the application is
told to end, and only after it the sidecar. An Envoy that gets SIGTERM is gone at once, with all it still had to do.
Source: Kubernetes docs, "Pod Lifecycle", termination of Pods, and "Sidecar Containers".
"""

from __future__ import annotations

import math
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.values import seconds

Item = dict[str, Any]

MARGIN_SECONDS = 5
"""For what is between the API server and the cluster's DNS, and between that and a caller."""
GRACE_SECONDS = 10
"""For containers to stop, above what is waited for."""
SHELLESS = "distroless"
"""In the tag of an image without a shell."""


def wait_seconds(mesh: Item) -> int:
    """Time until no caller has the address of a pod that left DNS."""
    dns = mesh["dns"]
    return math.ceil(sum(seconds(dns[key]) for key in ("refresh_rate", "jitter", "ttl"))) + MARGIN_SECONDS


def sleep(duration: int) -> Item:
    """Nothing for a while, without a shell. Kubernetes ≥1.30."""
    return {"preStop": {"sleep": {"seconds": duration}}}


def fail_and_wait(image: str, admin_port: int, duration: int) -> Item:
    """Envoy's health check fails, by which it closes connections as they fall idle; then it serves on for a while."""
    if not has_shell(image):
        return sleep(duration)
    # The image has bash, and nothing that speaks HTTP. The subshell, because a failing exec would end the shell.
    request = (
        "POST /healthcheck/fail HTTP/1.1\\r\\nHost: admin\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n"
    )
    script = (
        f"(exec 3<>/dev/tcp/127.0.0.1/{admin_port}; printf '{request}' >&3; read -r -t 5 <&3); exec sleep {duration}"
    )
    return {"preStop": {"exec": {"command": ["/bin/bash", "-c", script]}}}


def has_shell(image: str) -> bool:
    return SHELLESS not in image.rpartition(":")[2] and SHELLESS not in image.rpartition("/")[2]


def drain_seconds(envoy: Item) -> int:
    return math.ceil(seconds(envoy["drain_time"]))
