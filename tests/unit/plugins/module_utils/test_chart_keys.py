"""Keys that a chart knows, and those it does not, on a small chart with every way to read a value."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.chart_files import ChartError, read_chart
from ansible_collections.sidecar.mesh.plugins.module_utils.chart_keys import known_keys, unknown_keys
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_settings import check_settings
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_values import chart_values

VALUES = """
operator: {replicas: 2, nodeSelector: {kubernetes.io/os: linux}, podSecurityContext: {runAsNonRoot: true}}
securityContext: {privileged: false, seLinuxOptions: {level: s0}}
extraEnv: []
extraArgs: {}
socketLB: {enabled: false}
loadBalancer: {acceleration: disabled}
relay: {podLabels: {}, port: 4245}
"""
SCHEMA = {"properties": {"debug": {"properties": {"verbose": {}}}, "operator": {"properties": {"rollOutPods": {}}}}}
TEMPLATES = [
    "{{ .Values.loadBalancer.mode }} {{ $.Values.kvstore.timeout }}",
    (
        '{{- $lb := (coalesce .Values.socketLB .Values.old) }}{{ if hasKey $lb "tracing" }}{{ $lb.hostNamespaceOnly '
        "}}{{ end }}"
    ),
    '{{ if hasKey .Values "bandwidth" }}{{ end }}',
    "{{- with .Values.operator.podSecurityContext }}\n  {{- toYaml . | nindent 4 }}{{ end }}",
    "{{ .Values.securityContext.seLinuxOptions | toYaml }}",
]


def keys() -> dict[str, Any]:
    return known_keys(yaml.safe_load(VALUES), SCHEMA, TEMPLATES, ["subchart"])


@pytest.mark.parametrize(
    "given",
    [
        "operator: {replicas: 1, rollOutPods: true}",
        "debug: {verbose: flow}",
        "loadBalancer: {mode: dsr}",
        "kvstore: {timeout: 3s}",
        "socketLB: {tracing: true, hostNamespaceOnly: true}",
        "bandwidth: {enabled: true}",
        # What Kubernetes takes as it is.
        "operator: {nodeSelector: {any: thing}, podSecurityContext: {fsGroup: 1}}",
        "securityContext: {seLinuxOptions: {type: spc_t}}",
        "relay: {podLabels: {any: thing}}",
        "extraArgs: {any: thing}",
        "extraEnv: [{name: A, value: b}]",
        "subchart: {any: thing}",
    ],
)
def test_what_a_chart_knows(given: str) -> None:
    assert unknown_keys(yaml.safe_load(given), keys()) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("operator: {replica: 1}", [("operator.replica", "operator.replicas")]),
        ("sockatLB: {enabled: true}", [("sockatLB", "socketLB")]),
        ("securityContext: {privilegd: true}", [("securityContext.privilegd", "securityContext.privileged")]),
        ("relay: {hostNamespaceOnly: true}", [("relay.hostNamespaceOnly", "socketLB.hostNamespaceOnly")]),
        ("nothing_like_it: 1", [("nothing_like_it", "")]),
        ("8080: 1", [("8080", "")]),
        ("loadBalancer: {mod: dsr, l7: {x: 1}}", [("loadBalancer.mod", "loadBalancer.mode"), ("loadBalancer.l7", "")]),
    ],
)
def test_what_it_does_not_know(given: str, expected: list[tuple[str, str]]) -> None:
    assert unknown_keys(yaml.safe_load(given), keys()) == expected


FILES = {
    "Chart.yaml": "name: small\nversion: 1.2.3\ndependencies: [{name: redis}, {name: x, alias: y}]\n",
    "values.yaml": VALUES,
    "values.schema.json": '{"properties": {"a": {}}}',
    "templates/a.yaml": TEMPLATES[0],
    "files/b.json": TEMPLATES[1],
    "README.md": "{{ .Values.not.read }}",
}


def write(path: Path, packed: bool) -> str:
    if not packed:
        for name, text in FILES.items():
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_text(text)
        return str(path)
    with tarfile.open(path / "small-1.2.3.tgz", "w:gz") as archive:
        for name, text in FILES.items():
            member = tarfile.TarInfo(f"small/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return str(path / "small-1.2.3.tgz")


@pytest.mark.parametrize("packed", [True, False], ids=["tgz", "folder"])
def test_reading_a_chart(packed: bool, tmp_path: Path) -> None:
    chart = read_chart(write(tmp_path, packed))
    assert (chart.metadata["name"], chart.metadata["version"], chart.parts) == ("small", "1.2.3", ["redis", "y"])
    assert chart.values == yaml.safe_load(VALUES)
    assert chart.schema == {"properties": {"a": {}}}
    assert sorted(chart.templates) == sorted(TEMPLATES[:2])


def test_what_is_no_chart(tmp_path: Path) -> None:
    (tmp_path / "broken.tgz").write_text("no archive")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("broken.tgz", "broken.tgz is no archive; give a chart's .tgz or its folder"),
        ("missing.tgz", "missing.tgz cannot be read: No such file or directory; give a chart's .tgz or its folder"),
        ("empty", "empty has no Chart.yaml; give a chart's .tgz or its folder"),
    ):
        with pytest.raises(ChartError, match=message):
            read_chart(str(tmp_path / name))


@pytest.mark.skipif("CILIUM_CHART" not in os.environ, reason="CILIUM_CHART names no chart of Cilium")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("loadBalancer: {mode: dsr, algorithm: maglev}\nsocketLB: {hostNamespaceOnly: true}", []),
        ("l2announcements: {leaseDuration: 3s}\nk8sClientRateLimit: {qps: 30}\nextraConfig: {any: thing}", []),
        ("operator: {podAnnotations: {any: thing}, affinity: {any: thing}}\nextraEnv: [{name: a}]", []),
        ("kubeProxyReplacment: true", [("kubeProxyReplacment", "kubeProxyReplacement")]),
        ("operator: {rollOutCiliumPods: true}", [("operator.rollOutCiliumPods", "operator.rollOutPods")]),
    ],
)
def test_the_real_chart(given: str, expected: list[tuple[str, str]]) -> None:
    chart = read_chart(os.environ["CILIUM_CHART"])
    known = known_keys(chart.values, chart.schema, chart.templates)
    assert unknown_keys(yaml.safe_load(given), known) == expected


@pytest.mark.skipif("CILIUM_CHART" not in os.environ, reason="CILIUM_CHART names no chart of Cilium")
def test_the_real_chart_knows_all_that_the_role_gives() -> None:
    text = """
    {version: 1.20.0, pod_cidr: [10.42.0.0/16, 2001:db8::/56], api_host: 127.0.0.1, kube_proxy_replacement: true,
     l2: {},
     hubble: {relay: true, ui: true, metrics: [dns]}, wireguard: true, operator_tolerations: [{operator: Exists}]}
    """
    chart = read_chart(os.environ["CILIUM_CHART"])
    known = known_keys(chart.values, chart.schema, chart.templates)
    assert unknown_keys(chart_values(check_settings(yaml.safe_load(text)), "1.20"), known) == []
