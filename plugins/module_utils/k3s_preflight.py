# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps nodes from becoming a cluster: every problem of every node, a line each, with the remedy.

Pure functions over what was read; the shape of ``nodes`` and of the plan is told in k3s_plan. Lines are
``host: subject: what is wrong; remedy``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_config
from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_requirements as required
from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_nodes import address_of, installs, is_active, name_of

Item = dict[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

OWN_CNI = ("05-cilium.conflist", "00-cilium-cni.conf")
OWN_INTERFACES = re.compile(r"^(cilium|lxc|cni0|flannel|kube-|veth)")
FIREWALL = {
    "server": "TCP 6443, 10250; with several servers TCP 2379-2380 among them",
    "agent": "TCP 10250",
    "cilium": "UDP 8472 (VXLAN), UDP 51871 (WireGuard), TCP 4240, 4244",
    "flannel": "UDP 8472 (VXLAN)",
    "none": "those of your network",
}

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_OTHERS = "was not written by this role"


def find_problems(nodes: dict[str, Item], plan: Item, wanted: Item) -> Iterator[str]:
    """Everything that has to be put right before anything is changed."""
    yield from _check_groups(wanted)
    yield from _check_inventory(nodes, plan)
    yield from _check_networks(nodes, plan)
    for host, node in nodes.items():
        if host not in wanted["run"]:
            continue
        found = [
            *k3s_config.refused(node["kind"], node["inputs"]),
            *_check_machine(node),
            *_check_control_groups(node, plan["nodes"][host]["config"]),
            *_check_kernel(node),
            *_check_clock(node, wanted["max_clock_skew"]),
            *_check_ports(node, plan),
            *_check_version(node),
            *_check_membership(host, node, nodes, plan),
            *_check_leftovers(node),
        ]
        yield from (f"{host}: {line}" for line in found)


def find_warnings(nodes: dict[str, Item], plan: Item, wanted: Item) -> Iterator[str]:
    """What a person should know, and may have meant."""
    count = len(plan["servers"])
    if plan["datastore"] == "etcd" and count > 1 and count % 2 == 0:
        yield (
            f"k3s_servers: {count} servers: etcd needs more than half of them, so {count} bear the loss of no more than"
            f" {count - 1} do, and there is one more to lose; add one, or make one an agent"
        )
    for host, node in nodes.items():
        if host not in wanted["run"]:
            continue
        kind, machine = node["kind"], node["machine"]
        if machine["firewalls"] and not is_active(node):
            yield (
                f"{host}: {' and '.join(machine['firewalls'])} is active: allow {FIREWALL[kind]};"
                f" {FIREWALL[node['inputs']['network']]}; and all from {k3s_config.comma(node['inputs']['cluster_cidr'])}"
                f" and {k3s_config.comma(node['inputs']['service_cidr'])}"
            )
        if machine["selinux_without_policy"]:
            yield f"{host}: SELinux is enforcing without the policy of k3s; install the package k3s-selinux"
        if required.MEMORY[kind] <= machine["memory"] < required.COMFORTABLE_MEMORY[kind]:
            yield f"{host}: {machine['memory']} MB of memory are few for {_a(kind)}; k3s asks for 2 GB on servers, 512 MB on agents"


# What only all nodes together tell


def _check_groups(wanted: Item) -> Iterator[str]:
    for host in wanted["strays"]:
        yield f"{host}: is in neither group of k3s; put it into one (k3s_server_group, k3s_agent_group), or leave it out of the play"
    for host in wanted["both"]:
        yield f"{host}: is in the groups of servers and of agents; servers run pods, too: take it out of the agents"


def _check_inventory(nodes: dict[str, Item], plan: Item) -> Iterator[str]:
    yield from _twice({host: name_of(node) for host, node in nodes.items()}, "node name", "give them names of their own by k3s_node_name, or hostnames")
    addresses = {host: address_of(node) for host, node in nodes.items()}
    yield from _twice(addresses, "address", "set k3s_node_ip to the address by which the other nodes reach them")
    if plan["datastore"] == "sqlite" and len(plan["servers"]) > 1:
        yield f"k3s_datastore: sqlite: is for a single server, and there are {len(plan['servers'])}; set etcd, or leave it out"
    servers = {host: node for host, node in nodes.items() if node["kind"] == "server"}
    for name in ("network", "cluster_cidr", "service_cidr", "api_address", "datastore"):
        yield from _differs({host: node["inputs"][name] for host, node in servers.items()}, f"k3s_{name}")
    for key in k3s_config.ALIKE:
        yield from _differs({host: node["inputs"]["server_config"].get(key) for host, node in servers.items()}, f"k3s_server_config.{key}")


def _twice(values: dict[str, str], what: str, remedy: str) -> Iterator[str]:
    for value in sorted({value for value in values.values() if value}):
        hosts = [host for host, other in values.items() if other == value]
        if len(hosts) > 1:
            yield f"{', '.join(hosts)}: {what} {value!r}: they all have it; {remedy}"


def _differs(values: dict[str, Any], variable: str) -> Iterator[str]:
    if len({str(value) for value in values.values()}) > 1:
        told = ", ".join(f"{value!r} on {host}" for host, value in values.items())
        yield f"{variable}: {told}: must be the same on every server; set it once, for the group"


def _check_networks(nodes: dict[str, Item], plan: Item) -> Iterator[str]:
    """CIDRs that are none, overlap each other, or networks the nodes reach already."""
    inputs = nodes[plan["leader"]]["inputs"]
    given: list[tuple[str, Network]] = []
    for name in ("cluster_cidr", "service_cidr"):
        for text in k3s_config.listed(inputs[name]):
            try:
                given.append((f"k3s_{name}", ipaddress.ip_network(text)))
            except ValueError as exc:
                yield f"k3s_{name}: {text!r}: is no network ({exc}); give one such as 10.42.0.0/16"
    for index, (variable, network) in enumerate(given):
        for other, second in given[:index]:
            if network.version == second.version and network.overlaps(second):  # type: ignore[arg-type]
                yield f"{variable}: {network}: overlaps with {other} {second}; choose another"
        yield from _overlaps_of_nodes(variable, network, nodes)


def _overlaps_of_nodes(variable: str, network: Network, nodes: dict[str, Item]) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for host, node in nodes.items():
        for route in node["machine"]["networks"]:
            taken = ipaddress.ip_network(route["network"])
            if not OWN_INTERFACES.match(route["interface"]) and taken.version == network.version and network.overlaps(taken):  # type: ignore[arg-type]
                found.setdefault(f"{taken} (interface {route['interface']})", []).append(host)
    for taken_by, hosts in found.items():
        yield (
            f"{variable}: {network}: overlaps with the network {taken_by} of {', '.join(hosts)}, which pods could not reach,"
            " nor the node itself; choose another"
        )


# One node


def _check_machine(node: Item) -> Iterator[str]:
    kind, inputs, machine, facts = node["kind"], node["inputs"], node["machine"], node["facts"]
    allowed = required.CILIUM_ARCHITECTURES if inputs["network"] == "cilium" else required.ARCHITECTURES
    if facts["architecture"] not in allowed:
        whose = "Cilium is" if facts["architecture"] in required.ARCHITECTURES else "k3s is"
        yield f"architecture: {facts['architecture']}: {whose} released for {', '.join(allowed)}; use another machine"
    if not machine["systemd"]:
        yield "systemd: does not run; k3s is a unit of systemd here, use a system that has it"
    if not _NAME.match(name_of(node)) or name_of(node) == "localhost":
        yield f"node name {name_of(node)!r}: is no name of a node (small letters, digits and -); set k3s_node_name, or another hostname"
    if not address_of(node):
        yield "address: the node has no default route, so its address is not known; set k3s_node_ip"
    if machine["memory"] < required.MEMORY[kind]:
        yield f"memory: {machine['memory']} MB: {_a(kind)} needs {required.MEMORY[kind]} at least; use a larger machine"
    if machine["disk_free"] < required.DISK and not node["k3s"]["authority"]:
        yield f"k3s_data_path: {inputs['data_path']}: only {machine['disk_free']} MB are free, and {required.DISK} are needed; make room, or choose another folder"


def _check_control_groups(node: Item, config: Item) -> Iterator[str]:
    groups = node["machine"]["cgroup"]
    missing = [name for name in required.CONTROLLERS if name not in groups["controllers"]]
    if missing:
        yield (
            f"control groups: no controller {', '.join(missing)}; add cgroup_enable=cpuset cgroup_memory=1 cgroup_enable=memory to the"
            " kernel's command line (Raspberry Pi: /boot/firmware/cmdline.txt), and restart the machine"
        )
    minor = re.match(r"v?(\d+)\.(\d+)", node["version"])
    arguments = k3s_config.listed(config.get("kubelet-arg"))
    if groups["version"] == 1 and minor and tuple(map(int, minor.groups())) > required.CGROUP_V1_UNTIL and "fail-cgroupv1=false" not in arguments:
        yield (
            f"control groups: version 1: the kubelet of {wanted['version']} wants version 2; start the machine with"
            f" systemd.unified_cgroup_hierarchy=1, or set k3s_{node['kind']}_config: {{kubelet-arg: [fail-cgroupv1=false]}}"
        )


def _check_kernel(node: Item) -> Iterator[str]:
    network, machine, release = node["inputs"]["network"], node["machine"], node["facts"]["kernel"]
    number = re.match(r"(\d+)\.(\d+)", release)
    if network == "cilium" and number and tuple(map(int, number.groups())) < required.CILIUM_KERNEL:
        yield f"kernel: {release}: Cilium needs {'.'.join(map(str, required.CILIUM_KERNEL))} at least; install a newer one, or set k3s_network: flannel"
    for name in required.MODULES[network]:
        if machine["modules"].get(name) == "absent":
            yield (
                f"kernel module {name}: the kernel does not have it; install the package with the rest of its modules"
                f" (Debian and Ubuntu: linux-modules-extra-{release}, Red Hat: kernel-modules-extra)"
            )
    for name, least in required.SYSCTLS.items():
        value = machine["sysctls"].get(name, "")
        if value.isdigit() and int(value) < least:
            yield f"{name}: {value}: is less than {least}; set it in /etc/sysctl.d (sysctl -w {name}={least})"
    arguments = node["inputs"][f"{node['kind']}_config"]
    if arguments.get("protect-kernel-defaults"):
        for name, expected in required.PROTECTED.items():
            if machine["sysctls"].get(name, expected) != expected:
                yield f"{name}: {machine['sysctls'][name]}: protect-kernel-defaults wants {expected}; set it in /etc/sysctl.d"


def _check_clock(node: Item, limit: float) -> Iterator[str]:
    ahead = node["machine"].get("clock_ahead", 0)
    if abs(ahead) > limit:
        yield (
            f"clock: is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of the machine Ansible runs on, and {limit} s are"
            " allowed: certificates would not be valid yet; have both synchronized (timedatectl set-ntp true)"
        )


def _check_ports(node: Item, plan: Item) -> Iterator[str]:
    etcd = required.ETCD_PORTS if plan["datastore"] == "etcd" else ()
    needed = {*required.SERVER_PORTS, *etcd} if node["kind"] == "server" else {*required.AGENT_PORTS}
    for port, holder in sorted(node["ports"].items(), key=lambda item: int(item[0])):
        if int(port) in needed:
            yield f"port {port}: is held by {holder}, and k3s needs it; stop that process"


def _check_version(node: Item) -> Iterator[str]:
    k3s, binary, architecture = node["k3s"], node["binary"], node["facts"]["architecture"]
    if binary and binary["architecture"] not in ("any", architecture):
        built = f"was built for {binary['architecture']}" if binary["architecture"] else "is no program"
        yield f"k3s_binary: {binary['path']}: {built}, and the node is {architecture}; name another file for this host"
    checksum = node["inputs"]["checksum"]
    if binary and checksum and checksum != binary["sha256"]:
        yield f"k3s_checksum: {checksum}: {binary['path']} has {binary['sha256']}; correct one of them"
    if not (k3s["authority"] or is_active(node)) or not k3s["version"] or not installs(node):
        return
    if binary:
        yield f"k3s_binary: {binary['path']}: is not the binary that is installed ({k3s['version']}); {_no_upgrade('name that one')}"
    elif k3s["version"] == node["version"]:
        yield f"k3s_checksum: {checksum}: the {k3s['version']} that is installed has {k3s['sha256']}; correct it, or reset the node"
    else:
        yield f"k3s_version: {wanted['version']}: {k3s['version']} is installed; {_no_upgrade('set k3s_version: ' + str(k3s['version']))}"


def _no_upgrade(remedy: str) -> str:
    return f"this role does not upgrade yet, and changes nothing by halves: {remedy}, or reset the node and let it join anew"


def _check_membership(host: str, node: Item, nodes: dict[str, Item], plan: Item) -> Iterator[str]:
    """Whether the node is of another cluster, or of another kind in this one."""
    k3s = node["k3s"]
    reference = nodes[plan["leader"]]["k3s"]["authority"]
    if k3s["authority"] and host != plan["leader"] and k3s["authority"] != reference:
        whose = f"of another cluster than {plan['leader']} is" if reference else "of a cluster of before"
        yield f"cluster: the node is {whose}: it would not believe its certificates; reset it first (--limit {host}), or take it out of the inventory"
    if k3s["token"] == "other":  # noqa: S105 - a state, no token
        yield "k3s_token: is not the token of the cluster that this server runs; remove the variable, or set that one"
    other = {"server": "agent", "agent": "server"}[node["kind"]]
    if plan["nodes"][host]["unit"] not in k3s["units"] and k3s["units"]:
        yield f"cluster: the node is {_a(other)} already, and its group says {node['kind']}; reset it first (--limit {host})"


def _check_leftovers(node: Item) -> Iterator[str]:
    """Files of others that k3s would read, or this role would overwrite."""
    k3s, network = node["k3s"], node["inputs"]["network"]
    if k3s["configuration"] == "others":
        yield f"/etc/rancher/k3s/config.yaml: {_OTHERS}; move what it says to k3s_{node['kind']}_config, and remove it"
    if k3s["registries"] == "others" and node["inputs"]["registries_given"]:
        yield f"/etc/rancher/k3s/registries.yaml: {_OTHERS}; move what it says to k3s_registries, and remove it"
    for unit, state in k3s["units"].items():
        if state["whose"] == "others":
            yield f"/etc/systemd/system/{unit}.service: {_OTHERS}; k3s was installed by something else, which has to remove it first ({unit}-uninstall.sh)"
    others = [name for name in node["machine"]["cni"] if name not in OWN_CNI and not name.endswith((".cilium_bak", ".lock"))]
    if network == "cilium" and others and not k3s["authority"]:
        yield f"/etc/cni/net.d: {', '.join(others)}: pods would get this network until Cilium is there; remove it, or set k3s_network: none"


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "agent" else f"a {kind}"
