# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of role cilium that have the right shape and cannot work: a line for each, which starts with its path."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Union

from ansible_collections.sidecar.mesh.plugins.module_utils.check import plain_repr
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_values import chart_values
from ansible_collections.sidecar.mesh.plugins.module_utils.values import seconds

Settings = dict[str, Any]
# ansible-test's pylint knows no | between types.
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]  # noqa: UP007
Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]  # noqa: UP007
Range = tuple[Address, Address]

JITTER = 1.2
"""Who does not hold a lease looks at it again after a retry period, and up to JITTER times that later.

Source: client-go, tools/leaderelection.
"""


def problems_of(settings: Settings) -> Iterator[str]:
    """``settings`` as check_settings of cilium_settings makes them."""
    values = chart_values(settings, None)
    yield from _version(settings)
    yield from _pod_networks(settings)
    yield from _api(settings, values)
    yield from _hubble(settings, values)
    yield from _pools(settings)
    yield from _announcements(settings, values)


def _version(settings: Settings) -> Iterator[str]:
    if not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?", settings["version"]):
        yield f"version: {settings['version']!r} is no version; give one such as 1.20.0"


# Networks


def networks(settings: Settings) -> list[Network]:
    return [ipaddress.ip_network(text) for text in settings["pod_cidr"]]


def _pod_networks(settings: Settings) -> Iterator[str]:
    if not settings["pod_cidr"]:
        yield "pod_cidr: is empty; give the network of pods, such as 10.42.0.0/16"
    for first, second in combinations(networks(settings), 2):
        if first.version == second.version and first.overlaps(second):
            yield f"pod_cidr: {first} and {second} overlap; give networks that do not"
    pools = inner(settings["values"], "ipam", "operator")
    for key in ("clusterPoolIPv4PodCIDRList", "clusterPoolIPv6PodCIDRList"):
        if key in pools:
            yield (
                f"values.ipam.operator.{key}: {plain_repr(pools[key])} would take the place of cilium_pod_cidr, "
                f"{', '.join(settings['pod_cidr'])}; set that, and leave this out"
            )


def inner(values: Any, *path: str) -> dict[str, Any]:
    """A dict inside of values, empty where there is none."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else {}


# The API server


def _api(settings: Settings, values: dict[str, Any]) -> Iterator[str]:
    host = settings["api_host"]
    known = values.get("k8sServiceHost") or inner(values, "k8sServiceHostRef").get("name")
    known = known or inner(values, "k8s").get("apiServerURLs")
    if replaces_kube_proxy(values) and not known:
        yield (
            "api_host: is empty; without kube-proxy Cilium finds the API server only where it is told to look. Give "
            "an address that every node reaches, and cilium_api_port (on k3s 127.0.0.1 and 6444)"
        )
    if re.search(r"[/\s]", host) or (":" in host and not is_address(host)):
        yield f"api_host: {host!r} is no host; give a name or an address, and its port in cilium_api_port"


def replaces_kube_proxy(values: dict[str, Any]) -> bool:
    return str(values.get("kubeProxyReplacement")).lower() == "true"


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# Hubble


def _hubble(settings: Settings, values: dict[str, Any]) -> Iterator[str]:
    hubble = settings["hubble"]
    for name in ("relay", "ui"):
        if hubble[name] and not hubble["enabled"]:
            yield f"hubble.{name}: true needs cilium_hubble.enabled: true"
    if hubble["ui"] and not hubble["relay"]:
        yield "hubble.ui: true needs cilium_hubble.relay: true, which it asks"
    method = inner(values, "hubble", "tls", "auto").get("method")
    if inner(values, "hubble").get("enabled") and method == "helm":
        yield (
            "values.hubble.tls.auto.method: 'helm' makes new certificates in every run; leave it out for cronJob, or "
            "give certmanager with certManagerIssuerRef"
        )


# Addresses of load balancers


def ranges(pool: dict[str, Any]) -> Iterator[tuple[str, Range]]:
    """First and last address of each block, with the block as a message shows it."""
    for block in pool["blocks"]:
        if block["cidr"]:
            network = ipaddress.ip_network(block["cidr"])
            yield block["cidr"], (network[0], network[-1])
        elif block["start"]:
            first = ipaddress.ip_address(block["start"])
            last = ipaddress.ip_address(block["stop"] or block["start"])
            yield (str(first) if first == last else f"{first} to {last}"), (first, last)


def meet(first: Range, second: Range) -> bool:
    """Whether two ranges have an address in common."""
    if first[0].version != second[0].version:
        return False
    return int(first[0]) <= int(second[1]) and int(second[0]) <= int(first[1])


def _pools(settings: Settings) -> Iterator[str]:
    pools = settings["lb_pools"]
    wrong = [line for index, pool in enumerate(pools) for line in _pool(index, pool, pools[:index])]
    yield from wrong
    if not wrong:
        yield from _overlaps(settings)


def _pool(index: int, pool: dict[str, Any], before: list[dict[str, Any]]) -> Iterator[str]:
    path = f"lb_pools[{index}]"
    names = [other["name"] for other in before]
    if pool["name"] in names:
        yield f"{path}.name: {pool['name']!r} is that of cilium_lb_pools[{names.index(pool['name'])}], too"
    if not pool["blocks"]:
        yield f"{path}.blocks: is empty; give {{cidr: 192.0.2.0/28}}, or {{start: 192.0.2.10, stop: 192.0.2.20}}"
    for number, block in enumerate(pool["blocks"]):
        yield from _block(f"{path}.blocks[{number}]", block)


def _block(path: str, block: dict[str, Any]) -> Iterator[str]:
    if bool(block["cidr"]) == bool(block["start"] or block["stop"]):
        yield f"{path}: give either cidr, or start and stop"
    elif block["stop"] and not block["start"]:
        yield f"{path}.start: is missing; give the first address, stop is the last"
    elif block["start"] and block["stop"]:
        first, last = ipaddress.ip_address(block["start"]), ipaddress.ip_address(block["stop"])
        if first.version != last.version or int(first) > int(last):
            yield f"{path}.stop: {last} does not come after start, {first}"


def _overlaps(settings: Settings) -> Iterator[str]:
    blocks = [(index, text, found) for index, pool in enumerate(settings["lb_pools"]) for text, found in ranges(pool)]
    for index, text, found in blocks:
        for network in networks(settings):
            if meet(found, (network[0], network[-1])):
                yield f"lb_pools[{index}].blocks: {text} overlaps with cilium_pod_cidr, {network}, which pods have"
    for (first, text, found), (second, other, its) in combinations(blocks, 2):
        if meet(found, its):
            yield f"lb_pools[{second}].blocks: {other} overlaps with {text} of cilium_lb_pools[{first}]"


# Announcements


def _announcements(settings: Settings, values: dict[str, Any]) -> Iterator[str]:
    l2 = settings["l2"]
    if not l2["enabled"]:
        return
    if not replaces_kube_proxy(values):
        yield "l2: needs cilium_kube_proxy_replacement: true; set that, or cilium_l2: {enabled: false}"
    for index, pattern in enumerate(l2["interfaces"]):
        try:
            re.compile(pattern)
        except re.error as exc:
            yield f"l2.interfaces[{index}]: {pattern!r} is no regular expression: {exc}; give one such as ^eth[0-9]+"
    lease, renew, retry = (seconds(l2[name]) for name in ("lease_duration", "renew_deadline", "retry_period"))
    if lease < 1 or lease != int(lease):
        yield f"l2.lease_duration: {lease:g}s is not allowed; give whole seconds, at least 1s"
    if renew >= lease:
        yield (
            f"l2.renew_deadline: {renew:g}s must be less than cilium_l2.lease_duration, {lease:g}s, or two nodes would "
            "answer for one address"
        )
    if not 0 < retry * JITTER < renew:
        yield (
            f"l2.retry_period: {retry:g}s must be more than 0s and, times {JITTER}, less than "
            f"cilium_l2.renew_deadline, {renew:g}s"
        )


def failover(l2: dict[str, Any]) -> tuple[float, float]:
    """Seconds, at the least and at the most, until another node answers for an address whose node has died.

    The node that dies renewed its lease within the last ``retry_period``. Another sees that up to
    ``retry_period * (1 + JITTER)`` later, waits ``lease_duration`` from then on, and looks again as late.
    """
    lease, retry = seconds(l2["lease_duration"]), seconds(l2["retry_period"])
    return lease - retry, lease + 2 * retry * (1 + JITTER)
