# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kubelet's probes of Envoy and of the application.

Source: Kubernetes docs, "Configure Liveness, Readiness and Startup Probes".
"""

from __future__ import annotations

import math
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.check import check_fields
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_drain import has_shell
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_pod import PROBE
from ansible_collections.sidecar.mesh.plugins.module_utils.values import present, seconds

Item = dict[str, Any]

HEALTH_HEADER = {"name": "x-envoy-livenessprobe", "value": "healthz"}
LIVENESS_PERIOD = 10
STARTUP_SECONDS = 120
LOOKUPS = 20
"""How often an Envoy asks DNS in vain for an upstream before it begins without."""
# Clusters that do not ask DNS attempt nothing. Names are not given: pods would be replaced whenever a cluster is new.
_STARTED = r"""exec 3<>/dev/tcp/127.0.0.1/%(port)d || exit 1
printf 'GET /stats?filter=state%%%%7Cupdate_ HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n' >&3
declare -A tries
while read -r -t 2 name value; do
  case $name in
    server.state:) state=${value%%$'\r'} ;;
    cluster.*.update_attempt:) tries[${name%%attempt:}]=$value ;;
    cluster.*.update_success:) [[ $value = 0* ]] && late+=" ${name%%success:}" ;;
  esac
done <&3
[[ $state = 0 ]] || exit 1
for name in $late; do
  [[ ${tries[$name]:-0} -eq 0 || ${tries[$name]} -ge %(often)d ]] || exit 1
done
"""


def envoy_probes(proxy: Item, image: str, drain_seconds: int) -> Item:
    """The probes of an Envoy's container. Liveness gives a draining Envoy, which refuses, the time it needs."""
    asked = envoy_question(proxy)
    failures = math.ceil(drain_seconds / LIVENESS_PERIOD) + 3
    return {
        "startupProbe": {
            **(_started(proxy["envoy"]["admin_port"]) if has_shell(image) else asked),
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": STARTUP_SECONDS,
        },
        "readinessProbe": {**asked, "periodSeconds": 5, "timeoutSeconds": 2, "failureThreshold": 3},
        "livenessProbe": {**asked, "periodSeconds": LIVENESS_PERIOD, "timeoutSeconds": 2, "failureThreshold": failures},
    }


def _started(admin_port: int) -> Item:
    """Envoy is live, and has found its upstreams in DNS, or asked for them long enough.

    Without an answer it would begin all the same and refuse requests, such as while a node is drained on which DNS ran.
    """
    return {"exec": {"command": ["/bin/bash", "-c", _STARTED % {"port": admin_port, "often": LOOKUPS}]}}


def envoy_port(proxy: Item) -> int:
    """The port on which the kubelet probes an Envoy."""
    found: int = _probed(proxy)["port"]
    return found


def _probed(proxy: Item) -> Item:
    """The listener that is asked: one that answers probes itself (by TLS, if it can), the metrics', or the first.

    None accepts a connection before all clusters are warm. The admin interface is on loopback, where the kubelet does
    not come.
    """
    listeners = [item for item in proxy["listeners"] if item["direction"] != "egress"]
    answering = [item for item in listeners if item["health_path"] is not None and item["protocol"] == "http"]
    metrics = [item for item in listeners if item["direction"] == "metrics"]
    found: Item = [*sorted(answering, key=lambda item: item["tls"] is None), *metrics, *listeners][0]
    return found


def envoy_question(proxy: Item) -> Item:
    """What the kubelet asks an Envoy, and where."""
    listener = _probed(proxy)
    if listener["health_path"] is None or listener["protocol"] != "http":
        return {"tcpSocket": {"port": listener["port"]}}
    question = {"path": listener["health_path"], "port": listener["port"], "httpHeaders": [HEALTH_HEADER]}
    return {"httpGet": {**question, "scheme": "HTTPS" if listener["tls"] else "HTTP"}}


def application_probes(service: Item) -> Item:
    """The probes of an application's container."""
    given = service["probes"]
    readiness = _default_readiness(service) if given["readiness"] is None else given["readiness"]
    found = {"startup": given["startup"], "readiness": readiness, "liveness": given["liveness"]}
    return {f"{name}Probe": _probe(probe, service) for name, probe in found.items() if probe}


def application_ports(service: Item) -> list[int]:
    """The ports on which the kubelet probes an application."""
    questions = [question for probe in application_probes(service).values() for question in probe.values()]
    return sorted({item["port"] for item in questions if isinstance(item, dict) and "port" in item})


def _default_readiness(service: Item) -> Item:
    """What callers' health checks ask; else a connection, for an application need not know any other answer."""
    check = service["health_check"]
    kind = (check and check["type"]) or (service["protocol"] if check else "tcp")
    if kind in ("http", "http2") and check and service["protocol"] == "http":
        return _question(http={"path": check["path"]})
    if kind == "grpc" and check:
        return _question(grpc={"service": check["grpc_service"]})
    return _question(tcp={})


def _question(**kind: Item) -> Item:
    return check_fields(kind, PROBE, "", [])


def _probe(probe: Item, service: Item) -> Item:
    counts = {
        "periodSeconds": round(seconds(probe["period"])),
        "timeoutSeconds": round(seconds(probe["timeout"])),
        "initialDelaySeconds": round(seconds(probe["initial_delay"])) or None,
        "failureThreshold": probe["failure_threshold"],
        "successThreshold": probe["success_threshold"],
    }
    return present({**_asked(probe, service["port"]), **counts})


def _asked(probe: Item, port: int) -> Item:
    http, grpc, tcp = probe["http"], probe["grpc"], probe["tcp"]
    if http:
        headers = [{"name": name, "value": value} for name, value in sorted(http["headers"].items())]
        return {"httpGet": present({"path": http["path"], "port": http["port"] or port, "httpHeaders": headers})}
    if grpc:
        return {"grpc": {"port": grpc["port"] or port, "service": grpc["service"]}}
    if tcp:
        return {"tcpSocket": {"port": tcp["port"] or port}}
    return {"exec": {"command": probe["exec"]["command"]}}
