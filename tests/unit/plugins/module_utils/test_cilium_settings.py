"""Mistakes in what role cilium is given: the lines of the one message that tells all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_checks import failover
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_settings import (
    BLOCK,
    FIELDS,
    HUBBLE,
    L2,
    POOL,
    SettingsError,
    check_settings,
)

K3S: dict[str, Any] = {
    "version": "1.20.0",
    "pod_cidr": "10.42.0.0/16",
    "api_host": "127.0.0.1",
    "api_port": 6444,
    "kube_proxy_replacement": True,
}


def problems(text: str) -> list[str]:
    try:
        check_settings({**K3S, **(yaml.safe_load(text) or {})})
    except SettingsError as error:
        return error.problems
    return []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "api_host: ''\nkube_proxy_replacement: false",
        "api_host: 2001:db8::1",
        "api_host: api.example.com",
        "pod_cidr: [10.42.0.0/16, 2001:db8:42::/56]",
        "values: {k8sServiceHost: 127.0.0.1}\napi_host: ''",
        "values: {kubeProxyReplacement: false}\napi_host: ''",
        "hubble: {enabled: false}\nvalues: {hubble: {tls: {auto: {method: helm}}}}",
        "hubble: {relay: true, ui: true, metrics: [dns]}",
        (
            "lb_pools: [{name: a, blocks: [{cidr: 192.0.2.0/29}, {start: 192.0.2.8, stop: 192.0.2.9}, {start: "
            "192.0.2.10}]}]"
        ),
        "lb_pools: [{name: a, blocks: [{cidr: 2001:db8::/120}]}, {name: b, blocks: [{cidr: 192.0.2.0/24}]}]",
        "l2: {interfaces: ['^eth[0-9]+$'], node_selector: {zone: a}}",
        "l2: {lease_duration: 15s, renew_deadline: 5s, retry_period: 2s}",
    ],
)
def test_settings_that_can_work(text: str) -> None:
    assert problems(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: '1.20'", ["cilium_version: '1.20' is no version; give one such as 1.20.0"]),
        ("pod_cidr: []", ["cilium_pod_cidr: is empty; give the network of pods, such as 10.42.0.0/16"]),
        (
            "pod_cidr: 10.42.0.1/16",
            ["cilium_pod_cidr[0]: '10.42.0.1/16' is not allowed; give a network such as 10.0.0.0/8"],
        ),
        (
            "pod_cidr: [10.42.0.0/16, 10.42.128.0/17]",
            ["cilium_pod_cidr: 10.42.0.0/16 and 10.42.128.0/17 overlap; give networks that do not"],
        ),
        (
            "values: {ipam: {operator: {clusterPoolIPv4PodCIDRList: [10.0.0.0/8]}}}",
            [
                (
                    "cilium_values.ipam.operator.clusterPoolIPv4PodCIDRList: ['10.0.0.0/8'] would take the place of "
                    "cilium_pod_cidr, 10.42.0.0/16; set that, and leave this out"
                )
            ],
        ),
        (
            "api_host: ''",
            [
                (
                    "cilium_api_host: is empty; without kube-proxy Cilium finds the API server only where it is told "
                    "to look. "
                    "Give an address that every node reaches, and cilium_api_port (on k3s 127.0.0.1 and 6444)"
                )
            ],
        ),
        (
            "api_host: https://10.0.0.1:6443",
            [
                (
                    "cilium_api_host: 'https://10.0.0.1:6443' is no host; give a name or an address, and its port in "
                    "cilium_api_port"
                )
            ],
        ),
        (
            "hubble: {enabled: false, relay: true, ui: true}",
            [
                "cilium_hubble.relay: true needs cilium_hubble.enabled: true",
                "cilium_hubble.ui: true needs cilium_hubble.enabled: true",
            ],
        ),
        ("hubble: {ui: true}", ["cilium_hubble.ui: true needs cilium_hubble.relay: true, which it asks"]),
        (
            "hubble: {rely: true}",
            ["cilium_hubble.rely: unknown key, did you mean 'relay'? (known: enabled, metrics, relay, ui)"],
        ),
        (
            "values: {hubble: {tls: {auto: {method: helm}}}}",
            [
                (
                    "cilium_values.hubble.tls.auto.method: 'helm' makes new certificates in every run; leave it out "
                    "for cronJob, "
                    "or give certmanager with certManagerIssuerRef"
                )
            ],
        ),
        (
            (
                "lb_pools: [{name: a, blocks: []}, {name: a, blocks: [{stop: 192.0.2.1}, {cidr: 192.0.2.0/28, start: "
                "192.0.2.1}, "
                "{start: 192.0.2.9, stop: 192.0.2.1}]}]"
            ),
            [
                (
                    "cilium_lb_pools[0].blocks: is empty; give {cidr: 192.0.2.0/28}, or {start: 192.0.2.10, stop: "
                    "192.0.2.20}"
                ),
                "cilium_lb_pools[1].name: 'a' is that of cilium_lb_pools[0], too",
                "cilium_lb_pools[1].blocks[0].start: is missing; give the first address, stop is the last",
                "cilium_lb_pools[1].blocks[1]: give either cidr, or start and stop",
                "cilium_lb_pools[1].blocks[2].stop: 192.0.2.1 does not come after start, 192.0.2.9",
            ],
        ),
        (
            (
                "lb_pools: [{name: a, blocks: [{start: 10.41.255.250, stop: 10.42.0.0}]}, {name: b, blocks: [{cidr: "
                "10.41.255.252/30}]}]"
            ),
            [
                (
                    "cilium_lb_pools[0].blocks: 10.41.255.250 to 10.42.0.0 overlaps with cilium_pod_cidr, "
                    "10.42.0.0/16, which "
                    "pods have"
                ),
                (
                    "cilium_lb_pools[1].blocks: 10.41.255.252/30 overlaps with 10.41.255.250 to 10.42.0.0 of "
                    "cilium_lb_pools[0]"
                ),
            ],
        ),
        (
            (
                "l2: {interfaces: ['eth*('], lease_duration: 1500ms, renew_deadline: 3s, retry_period: 1s}\n"
                "kube_proxy_replacement: false"
            ),
            [
                "cilium_l2: needs cilium_kube_proxy_replacement: true; set that, or cilium_l2: {enabled: false}",
                (
                    "cilium_l2.interfaces[0]: 'eth*(' is no regular expression: missing ), unterminated subpattern "
                    "at position "
                    "4; give one such as ^eth[0-9]+"
                ),
                "cilium_l2.lease_duration: 1.5s is not allowed; give whole seconds, at least 1s",
                (
                    "cilium_l2.renew_deadline: 3s must be less than cilium_l2.lease_duration, 1.5s, or two nodes "
                    "would answer for "
                    "one address"
                ),
            ],
        ),
        (
            "l2: {retry_period: 1900ms}",
            [
                (
                    "cilium_l2.retry_period: 1.9s must be more than 0s and, times 1.2, less than "
                    "cilium_l2.renew_deadline, 2s"
                ),
            ],
        ),
        (
            "l2: {retry_period: soon}",
            ["cilium_l2.retry_period: 'soon' is not allowed; give a time such as 250ms, 2s, 1m or 1h"],
        ),
        ("api_port: 0", ["cilium_api_port: 0 is not allowed; give a whole number from 1 to 65535"]),
    ],
)
def test_mistakes_and_remedies(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


def test_all_mistakes_are_one_message() -> None:
    with pytest.raises(SettingsError) as raised:
        check_settings({**K3S, "version": "latest", "api_host": ""})
    assert str(raised.value).splitlines()[0] == "Role cilium has 2 problems:"
    assert len(str(raised.value).splitlines()) == 3


def test_checked_settings_can_be_checked_again() -> None:
    text = "lb_pools: [{name: a, blocks: [{cidr: 192.0.2.0/29}]}]\nl2: {retry_period: 250ms}"
    once = check_settings({**K3S, **yaml.safe_load(text)})
    assert check_settings(once) == once
    assert once["l2"]["retry_period"] == "0.25s"


@pytest.mark.parametrize(
    ("lease", "retry", "expected"),
    [("3s", "500ms", (2.5, 5.2)), ("15s", "2s", (13.0, 23.8)), ("1s", "100ms", (0.9, 1.44))],
)
def test_failover_times(lease: str, retry: str, expected: tuple[float, float]) -> None:
    assert failover({"lease_duration": lease, "retry_period": retry}) == pytest.approx(expected)


def test_the_page_tells_the_failover_times_and_all_keys() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "cilium.md").read_text()
    shortest, longest = failover(check_settings({**K3S, "l2": {}})["l2"])
    assert f"{shortest:g} to {longest:g} seconds with the defaults" in page
    assert [key for key in (*HUBBLE, *L2, *POOL, *BLOCK) if f"`{key}`" not in page] == []
    shown = {key: field["default"] for key, field in L2.items() if field["type"] in ("duration", "int")}
    assert [key for key, default in shown.items() if f"| `{key}` | `{default}` |" not in page] == []


def test_defaults_are_those_of_the_role() -> None:
    settings = check_settings({"version": "1.20.0", "pod_cidr": "10.42.0.0/16"})
    assert settings["l2"]["enabled"] is False
    assert set(settings) == set(FIELDS)
