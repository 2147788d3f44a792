"""What is wrong with what only engine kubernetes reads: every mistake and its exact line."""

from __future__ import annotations

import pytest
from unit.mistakes import KUBERNETES, F, S, problems_of

ONE_KIND = "give exactly one of http, grpc, tcp or exec"
PEER = "give cidr or pods (app, pods, namespace)"
DESTINATION = "give host, cidr or pods (app, pods, namespace)"


def service(text: str, settings: str = KUBERNETES) -> str:
    return f"{settings}services: [{{name: a, image: x, port: 8080, {text}}}]"


def front(text: str, settings: str = KUBERNETES) -> str:
    return (
        f"{settings}services: [{{name: a, image: x, port: 8080}}]\n"
        f"fronts: [{{name: f, listeners: [{{port: 80}}], routes: [{{prefix: /, service: a}}], {text}}}]"
    )


CASES: dict[str, tuple[str, list[str]]] = {
    "a build is an image": (KUBERNETES + "services: [{name: a, port: 1, build: ../a}]", []),
    # probes
    "no kind": (service("probes: {startup: {period: 1s}}"), [f"{S}[0].probes.startup: has no kind; {ONE_KIND}"]),
    "two kinds": (
        service("probes: {readiness: {tcp: true, http: /}}"),
        [f"{S}[0].probes.readiness: has http or tcp; {ONE_KIND}"],
    ),
    "parts of seconds": (
        service("probes: {liveness: {tcp: true, period: 1500ms}}"),
        [f"{S}[0].probes.liveness.period: '1.5s' is not allowed; Kubernetes takes whole seconds"],
    ),
    "two successes": (
        service("probes: {startup: {tcp: true, success_threshold: 2}, readiness: {tcp: true, success_threshold: 2}}"),
        [f"{S}[0].probes.startup.success_threshold: 2 is not allowed; Kubernetes takes 1 for startup"],
    ),
    "an empty command": (
        service("probes: {liveness: {exec: {command: []}}}"),
        [f"{S}[0].probes.liveness.exec.command: is empty; give a command"],
    ),
    # pods
    "labels of the mesh": (
        service("pod: {labels: {app: b, app.kubernetes.io/name: b, team: c}}"),
        [
            f"{S}[0].pod.labels.app: is a label of the mesh; give another name",
            f"{S}[0].pod.labels.app.kubernetes.io/name: is a label of the mesh; give another name",
        ],
    ),
    "names in pods": (
        service(
            "environment: {A: x}, pod: {volumes: [{name: mesh-config}, {emptyDir: {}}], "
            "init_containers: [{name: envoy}], env: [{name: A, value: y}]}"
        ),
        [
            f"{S}[0].pod.volumes[0].name: 'mesh-config' is not allowed; names that begin with 'mesh-' are the mesh's",
            f"{S}[0].pod.init_containers[0].name: 'envoy' is a container of the mesh; give another name",
            f"{S}[0].pod.env[0].name: 'A' is in environment, too; give it once",
            f"{S}[0].pod.volumes[1].name: is missing; give a name",
        ],
    ),
    "elsewhere": (
        KUBERNETES
        + "services: [{name: a, host: a.b, port: 1, build: x, probes: {startup: {tcp: true}}, allow_to: [x.y]}]",
        [
            f"{S}[0].{key}: has no effect; a service that does not run here (host) has no pods here"
            for key in ("build", "allow_to", "probes")
        ],
    ),
    # names that Kubernetes has already
    "a service account": (
        KUBERNETES + "services: [{name: default, image: x, port: 8080}]",
        [
            (
                f"{S}[0].name: 'default' is the name of a ServiceAccount of Kubernetes' own; give another name, or "
                "pod.service_account"
            )
        ],
    ),
    "a service account of the user's": (
        KUBERNETES + "services: [{name: default, image: x, port: 8080, pod: {service_account: mine}}]",
        [],
    ),
    "the API server": (
        KUBERNETES + "services: [{name: kubernetes, image: x, port: 8080}]",
        [f"{S}[0].name: 'kubernetes' is a Service of Kubernetes' own in namespace default; give another name"],
    ),
    "the API server in another namespace": (
        "settings: {engine: kubernetes, namespace: b}\nservices: [{name: kubernetes, image: x, port: 8080}]",
        [],
    ),
    # metrics
    "no metrics": (
        front("metrics: false"),
        [
            (
                f"{F}[0].metrics: false is not allowed with mesh_config_delivery files, which reads there what Envoy "
                "has accepted; remove it, or set mesh_config_delivery: static"
            )
        ],
    ),
    "no metrics, static": (front("metrics: false", "settings: {engine: kubernetes, config_delivery: static}\n"), []),
    "no metrics, local": (
        "settings: {engine: local}\nservices: [{name: a, command: [x], port: 8080, sidecar: {metrics: false}}]",
        [],
    ),
    # Services of front proxies
    "node ports": (
        front("expose: {type: NodePort, node_ports: {80: 30080, 81: 30081}}"),
        [f"{F}[0].expose.node_ports.81: is no port of listeners (known: 80)"],
    ),
    "what only load balancers have": (
        front("expose: {type: NodePort, load_balancer_class: x, load_balancer_source_ranges: [10.0.0.0/8]}"),
        [
            f"{F}[0].expose.{key}: has no meaning for a Service of type NodePort; remove it, or give another type"
            for key in ("load_balancer_class", "load_balancer_source_ranges")
        ],
    ),
    "nothing outside": (
        front("expose: {host_ports: true, external_traffic_policy: Local}"),
        [
            (
                f"{F}[0].expose.external_traffic_policy: has no meaning for a Service of type ClusterIP; remove it, "
                "or give another type"
            )
        ],
    ),
    # peers of policies
    "peers": (
        service("allow_from: [{}, {app: a, cidr: 10.0.0.0/8}, {app: a, pods: {app: b}}, b], allow_to: [{ports: [1]}]"),
        [
            f"{S}[0].allow_from[0]: has nothing; {PEER}",
            f"{S}[0].allow_from[1]: has cidr or app; {PEER}",
            f"{S}[0].allow_from[2].pods.app: 'b' is beside app; give one of them",
            f"{S}[0].allow_to[0]: has nothing; {DESTINATION}",
        ],
    ),
    "peers of the mesh": (
        service("", "settings: {engine: kubernetes, network_policy: {metrics_from: [{}], dns: [{cidr: 10.0.0.1}]}}\n"),
        [
            "mesh_network_policy.dns[0].cidr: '10.0.0.1' is not allowed; give a network such as 10.0.0.0/8",
            f"mesh_network_policy.metrics_from[0]: has nothing; {PEER}",
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_mistake_has_its_line(name: str) -> None:
    inventory, lines = CASES[name]
    assert problems_of(inventory) == lines
