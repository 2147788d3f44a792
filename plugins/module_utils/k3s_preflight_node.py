# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of one machine keeps it from becoming a node."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_config
from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_requirements as required
from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_nodes import a, address_of, installs, is_active, name_of

Item = dict[str, Any]

OWN_CNI = ("05-cilium.conflist", "00-cilium-cni.conf")
OTHERS = "was not written by this role"

_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")


def check(node: Item, planned: Item, datastore: str, max_clock_skew: float) -> Iterator[str]:
    """Problems as ``subject: what is wrong; remedy``. ``planned`` is the node's part of the plan."""
    yield from _check_machine(node)
    yield from _check_control_groups(node, planned["config"])
    yield from _check_kernel(node)
    yield from _check_sysctls(node)
    yield from _check_clock(node, max_clock_skew)
    yield from _check_ports(node, datastore)
    yield from _check_binary(node)
    yield from _check_version(node)
    yield from _check_leftovers(node)


def _check_machine(node: Item) -> Iterator[str]:
    kind, inputs, machine = node["kind"], node["inputs"], node["machine"]
    architecture, name = node["facts"]["architecture"], name_of(node)
    allowed = required.CILIUM_ARCHITECTURES if inputs["network"] == "cilium" else required.ARCHITECTURES
    if architecture not in allowed:
        whose = "Cilium" if architecture in required.ARCHITECTURES else "k3s"
        yield f"architecture: {architecture}: {whose} is released for {', '.join(allowed)}; use another machine"
    if not machine["systemd"]:
        yield "systemd: does not run; k3s is one of its units here: use a system that has it"
    if not _NAME.match(name) or name == "localhost":
        yield f"node name {name!r}: a node cannot be called so; set k3s_node_name, or another hostname (a-z, 0-9 and -)"
    if not address_of(node):
        yield "address: the machine has no default route, which would tell its address; set k3s_node_ip"
    if machine["memory"] < required.MEMORY[kind]:
        yield f"memory: {machine['memory']} MB: {a(kind)} needs {required.MEMORY[kind]} at least; use a larger machine"
    if machine["disk_free"] < required.DISK and not node["k3s"]["authority"]:
        yield (
            f"k3s_data_path: {inputs['data_path']}: only {machine['disk_free']} MB are free, and {required.DISK} are"
            " needed; make room, or choose another folder"
        )


def _check_control_groups(node: Item, config: Item) -> Iterator[str]:
    groups = node["machine"]["cgroup"]
    missing = [name for name in required.CONTROLLERS if name not in groups["controllers"]]
    if missing:
        yield (
            f"control groups: no controller {', '.join(missing)}; add cgroup_enable=cpuset cgroup_memory=1"
            " cgroup_enable=memory to the kernel's command line (Raspberry Pi: /boot/firmware/cmdline.txt), and restart"
            " the machine"
        )
    minor = re.match(r"v?(\d+)\.(\d+)", node["version"])
    takes = minor is None or tuple(map(int, minor.groups())) <= required.CGROUP_V1_UNTIL
    told = "fail-cgroupv1=false" in k3s_config.listed(config.get("kubelet-arg"))
    if groups["version"] == 1 and not takes and not told:
        yield (
            f"control groups: version 1: the kubelet of {node['version']} wants version 2; start the machine with"
            " systemd.unified_cgroup_hierarchy=1, or set"
            f" k3s_{node['kind']}_config: {{kubelet-arg: [fail-cgroupv1=false]}}"
        )


def _check_kernel(node: Item) -> Iterator[str]:
    network, release = node["inputs"]["network"], node["facts"]["kernel"]
    number = re.match(r"(\d+)\.(\d+)", release)
    if network == "cilium" and number and tuple(map(int, number.groups())) < required.CILIUM_KERNEL:
        least = ".".join(map(str, required.CILIUM_KERNEL))
        yield f"kernel: {release}: Cilium needs {least} at least; install a newer one, or set k3s_network: flannel"
    for name in required.MODULES[network]:
        if node["machine"]["modules"].get(name) == "absent":
            yield (
                f"kernel module {name}: the kernel does not have it; install the package with the rest of its modules"
                f" (Debian and Ubuntu: linux-modules-extra-{release}, Red Hat: kernel-modules-extra)"
            )


def _check_sysctls(node: Item) -> Iterator[str]:
    present = node["machine"]["sysctls"]
    for name, least in required.SYSCTLS.items():
        value = present.get(name, "")
        if value.isdigit() and int(value) < least:
            yield f"{name}: {value}: is less than {least}; set it in /etc/sysctl.d (now: sysctl -w {name}={least})"
    if node["inputs"][f"{node['kind']}_config"].get("protect-kernel-defaults"):
        for name, expected in required.PROTECTED.items():
            value = present.get(name, expected)
            if value != expected:
                yield f"{name}: {value}: protect-kernel-defaults wants {expected}; set it in /etc/sysctl.d"


def _check_clock(node: Item, limit: float) -> Iterator[str]:
    ahead = node["machine"].get("clock_ahead", 0)
    if abs(ahead) > limit:
        yield (
            f"clock: is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of the machine Ansible runs on,"
            f" and {limit} s are allowed: certificates would not be valid yet; have both synchronized"
            " (timedatectl set-ntp true)"
        )


def _check_ports(node: Item, datastore: str) -> Iterator[str]:
    etcd = required.ETCD_PORTS if datastore == "etcd" else ()
    needed = {*required.SERVER_PORTS, *etcd} if node["kind"] == "server" else {*required.AGENT_PORTS}
    for port in sorted(map(int, node["ports"])):
        if port in needed:
            yield f"port {port}: is held by {node['ports'][str(port)]}, and k3s needs it; stop that process"


def _check_binary(node: Item) -> Iterator[str]:
    binary, architecture, checksum = node["binary"], node["facts"]["architecture"], node["inputs"]["checksum"]
    if not binary:
        return
    if not binary["sha256"]:
        yield (
            f"k3s_binary: {binary['path']}: is no file of the machine Ansible runs on, or cannot be read there; correct"
            " it, or leave it empty to have k3s downloaded"
        )
        return
    if binary["architecture"] not in ("any", architecture):
        built = f"was built for {binary['architecture']}" if binary["architecture"] else "is no program"
        yield f"k3s_binary: {binary['path']}: {built}, and the node is {architecture}; name another file for this host"
    if checksum and checksum != binary["sha256"]:
        yield f"k3s_checksum: {checksum}: {binary['path']} has {binary['sha256']}; correct one of them"


def _check_version(node: Item) -> Iterator[str]:
    """A version that would change where k3s is in use already."""
    k3s, binary = node["k3s"], node["binary"]
    in_use = k3s["version"] and (k3s["authority"] or is_active(node))
    if not in_use or not installs(node):
        return
    if not binary and k3s["version"] == node["version"]:
        yield (
            f"k3s_checksum: {node['inputs']['checksum']}: the {k3s['version']} that is installed has {k3s['sha256']};"
            " correct it, or reset the node"
        )
        return
    asked = f"k3s_version: {node['version']}" if not binary else f"k3s_binary: {binary['path']}: is not that"
    back = "name the file it was installed from" if binary else f"set k3s_version: {k3s['version']}"
    yield (
        f"{asked}: {k3s['version']} is installed; this role does not upgrade yet, and does nothing by halves: {back},"
        " or reset the node and let it join anew"
    )


def _check_leftovers(node: Item) -> Iterator[str]:
    """Files of others that k3s would read, or this role would overwrite."""
    k3s, inputs = node["k3s"], node["inputs"]
    if k3s["configuration"] == "others":
        yield (f"/etc/rancher/k3s/config.yaml: {OTHERS}; move what it says to k3s_{node['kind']}_config, and remove it")
    if k3s["registries"] == "others" and inputs["registries_given"]:
        yield f"/etc/rancher/k3s/registries.yaml: {OTHERS}; move what it says to k3s_registries, and remove it"
    for unit, state in k3s["units"].items():
        if state["whose"] == "others":
            yield (
                f"/etc/systemd/system/{unit}.service: {OTHERS}; have whatever installed k3s remove it first"
                f" ({unit}-uninstall.sh)"
            )
    names = [name for name in node["machine"]["cni"] if not name.endswith((".cilium_bak", ".lock"))]
    foreign = [name for name in names if name not in OWN_CNI]
    if inputs["network"] == "cilium" and foreign and not k3s["authority"]:
        yield (
            f"/etc/cni/net.d: {', '.join(foreign)}: pods would get this network until Cilium is there; remove it, or"
            " set k3s_network: none"
        )
