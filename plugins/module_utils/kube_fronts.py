# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a front proxy on Kubernetes is reached from here: at a load balancer, at a node, or through the API server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from ansible_collections.sidecar.mesh.plugins.module_utils import kube, pods
from ansible_collections.sidecar.mesh.plugins.module_utils.local import LOCALHOST

Object = dict[str, Any]

LOAD_BALANCER, HOST_PORT, NODE_PORT, FORWARD = "load balancer", "host port", "node port", "port-forward"
CONNECT_SECONDS = 2.0
_CHUNK = 1 << 16


class Place(NamedTuple):
    """``how``: for people, what kind of address it is."""

    address: str
    port: int
    how: str

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def places(service: Object, running: list[Object], port: int) -> list[Place]:
    """Where a front proxy's port may be reached, best first. ``running``: its pods.

    Nodes are those of its pods: who may read pods need not be allowed to read nodes, and with externalTrafficPolicy
    Local no other node answers.
    """
    balanced = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    addresses = [item.get("ip") or item.get("hostname") for item in balanced]
    exposed = next((item.get("nodePort") for item in service["spec"]["ports"] if item["port"] == port), None)
    ready = [pod for pod in running if pods.is_ready(pod)]
    nodes = dict.fromkeys(pod["status"].get("hostIP") for pod in ready)
    return [
        *(Place(address, port, LOAD_BALANCER) for address in addresses if address),
        *(Place(pod["status"]["hostIP"], opened, HOST_PORT) for pod in ready for opened in _host_ports(pod, port)),
        *(Place(node, exposed, NODE_PORT) for node in nodes if node and exposed),
    ]


def _host_ports(pod: Object, port: int) -> list[int]:
    """The node's ports that lead to one of a pod's."""
    found = [entry for container in pod["spec"]["containers"] for entry in container.get("ports") or []]
    return [entry["hostPort"] for entry in found if entry["containerPort"] == port and entry.get("hostPort")]


@contextlib.contextmanager
def reached(cluster: kube.Cluster, service: Object, running: list[Object], port: int) -> Iterator[Place]:
    """A place where the port takes connections. Raises OSError when there is none, ApiError."""
    found = next(filter(_answers, places(service, running, port)), None)
    if found:
        yield found
        return
    ready = [pod for pod in running if pods.is_ready(pod)]
    if not ready:
        raise OSError(f"no pod of {service['metadata']['name']} is ready")
    with forwarded(cluster, ready[0], port) as place:
        yield place


def _answers(place: Place) -> bool:
    try:
        socket.create_connection((place.address, place.port), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def forwarded(cluster: kube.Cluster, pod: Object, port: int) -> Iterator[Place]:
    """A port of this machine whose connections go to a pod's, each by a stream of its own through the API server.

    Raises ApiError.
    """
    pod_name = (pod["metadata"]["namespace"], pod["metadata"]["name"])
    kube.forward(cluster, *pod_name, port).close()  # whoever may not do this shall know
    with socket.create_server((LOCALHOST, 0)) as server:
        threading.Thread(target=_serve, args=(server, cluster, pod_name, port), daemon=True).start()
        try:
            yield Place(LOCALHOST, server.getsockname()[1], FORWARD)
        finally:
            # Closing alone would leave the thread waiting.
            server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, cluster: kube.Cluster, pod_name: tuple[str, str], port: int) -> None:
    with contextlib.suppress(OSError):
        while True:
            client = server.accept()[0]
            threading.Thread(target=_join, args=(client, cluster, pod_name, port), daemon=True).start()


def _join(client: socket.socket, cluster: kube.Cluster, pod_name: tuple[str, str], port: int) -> None:
    """Carry one connection until either side ends it. A stream that fails is a connection that ends."""
    with client, contextlib.suppress(kube.ApiError), contextlib.closing(kube.forward(cluster, *pod_name, port)) as pod:
        back = threading.Thread(target=_pump, args=(pod, client), daemon=True)
        back.start()
        _pump(client, pod)


def _pump(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
        # The client of kubernetes has no half-closed streams.
        if isinstance(target, socket.socket):
            target.shutdown(socket.SHUT_WR)
