# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What k3s and the network ask of a machine. Sources: k3s docs, "Requirements"; Cilium docs, "System Requirements"."""

from __future__ import annotations

ARCHITECTURES = ("x86_64", "aarch64", "armv7l")
"""Those k3s is released for, as ``uname -m`` names them."""
CILIUM_ARCHITECTURES = ("x86_64", "aarch64")
CILIUM_KERNEL = (5, 10)
CONTROLLERS = ("cpu", "cpuset", "memory")
MODULES = {
    "cilium": ("overlay", "vxlan"),
    "flannel": ("overlay", "br_netfilter", "vxlan"),
    "none": ("overlay", "br_netfilter"),
}
CGROUP_V1_UNTIL = (1, 34)
"""The last minor version of Kubernetes whose kubelet takes control groups of version 1 without being told to."""
SYSCTLS = {"fs.inotify.max_user_instances": 128, "fs.inotify.max_user_watches": 8192}
"""What the kubelet and containers cannot do with less of."""
PROTECTED = {"vm.overcommit_memory": "1", "vm.panic_on_oom": "0", "kernel.panic": "10", "kernel.panic_on_oops": "1"}
"""What the kubelet wants with ``protect-kernel-defaults``."""
MEMORY = {"server": 900, "agent": 400}
DISK = 1500
"""MB without which a node cannot start, let alone run pods."""
COMFORTABLE_MEMORY = {"server": 1900, "agent": 500}
SERVER_PORTS = (6443, 6444, 10250, 10257, 10259)
ETCD_PORTS = (2379, 2380, 2381)
AGENT_PORTS = (6444, 10250)
"""TCP ports that k3s itself takes."""
FIREWALL = {
    "server": "TCP 6443, 10250; with several servers TCP 2379-2380 among them",
    "agent": "TCP 10250",
    "cilium": "UDP 8472 (VXLAN), UDP 51871 (WireGuard), TCP 4240, 4244",
    "flannel": "UDP 8472 (VXLAN)",
    "none": "those of your network",
}
"""What has to get through a firewall, by kind of node and by network."""
