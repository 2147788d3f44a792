"""The cluster's components: their command lines, and the files they read."""

from __future__ import annotations

import json
import resource
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cluster.places import (
    API_SERVER,
    DNS,
    DOMAIN,
    HERE,
    HOST,
    KUBECONFIG,
    MEMORY,
    NAME,
    NODES,
    PODS,
    SERVICES,
    STATE,
    Node,
)

ETCD = "http://127.0.0.1:23790"
TOKENS = STATE / "tokens.csv"
SERVICE_ACCOUNT_KEY = STATE / "service-account.key"
CERTIFICATES = STATE / "certificates"
"""The API server makes its own; the file has the authority behind it, too."""
AUTHORITY = CERTIFICATES / "apiserver.crt"
PAUSE = "localhost/sidecar-mesh/pause:1"
USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:kube-proxy": "",
    **{f"system:node:{node.name}": "system:nodes" for node in NODES},
}
"""The components, by the names that Kubernetes' own roles are bound to, and their groups."""


def commands(programs: Path) -> dict[str, list[str]]:
    """The command of each component, in the order of their start."""
    host = {
        "etcd": [f"{programs}/etcd", *_flags(_etcd())],
        "apiserver": [f"{programs}/kube-apiserver", *_flags(_apiserver())],
        "controller-manager": [f"{programs}/kube-controller-manager", *_flags(_controller_manager())],
        "scheduler": [
            f"{programs}/kube-scheduler",
            *_flags({"kubeconfig": kubeconfig_of("system:kube-scheduler"), "leader-elect": "false"}),
        ],
    }
    host["policies"] = ["env", f"PYTHONPATH={HERE.parent}", sys.executable, "-m", "cluster.policies"]
    nodes = {
        f"{component}-{node.number}": node.inside(*command)
        for node in NODES
        for component, command in {
            "containerd": [f"{programs}/containerd", "--config", node.folder / "containerd.toml"],
            "kubelet": [f"{programs}/kubelet", *_flags(_kubelet(node))],
            "proxy": [f"{programs}/kube-proxy", *_flags(_proxy(node))],
        }.items()
    }
    return host | nodes


def write_secrets() -> None:
    """What is made once in a cluster's life."""
    if TOKENS.exists():
        return
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    _write(SERVICE_ACCOUNT_KEY, key.private_bytes(serialization.Encoding.PEM, *private).decode())
    rows = (f'{secrets.token_hex(16)},{user},{user},"{group}"\n' for user, group in USERS.items())
    _write(TOKENS, "".join(rows))


def write_kubeconfigs() -> None:
    """Write a kubeconfig for each user; the API server has written its certificate."""
    for line in TOKENS.read_text().splitlines():
        token, user, *_rest = line.split(",")
        cluster = {"server": API_SERVER, "certificate-authority": str(AUTHORITY)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sidecar-mesh",
            "clusters": [{"name": "sidecar-mesh", "cluster": cluster}],
            "contexts": [{"name": "sidecar-mesh", "context": {"cluster": "sidecar-mesh", "user": user}}],
            "users": [{"name": user, "user": {"token": token}}],
        }
        _write(kubeconfig_of(user), yaml.safe_dump(config, sort_keys=False))


def kubeconfig_of(user: str) -> Path:
    return KUBECONFIG if user == "admin" else STATE / f"{user.rpartition(':')[2]}.kubeconfig"


def write_configurations() -> None:
    """Write what the nodes' components read."""
    for node in NODES:
        _write(node.folder / "containerd.toml", _containerd(node))
        _write(node.folder / "cni" / "pods.conflist", json.dumps(_cni(node), indent=2))
        _write(node.folder / "kubelet.yaml", yaml.safe_dump(_kubelet_configuration(node), sort_keys=False))


def _etcd() -> dict[str, object]:
    peers = "http://127.0.0.1:23800"
    return {
        "data-dir": MEMORY / "etcd",
        "listen-client-urls": ETCD,
        "advertise-client-urls": ETCD,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"default={peers}",
        "logger": "zap",
        "log-level": "warn",
        "unsafe-no-fsync": "true",
    }


def _apiserver() -> dict[str, object]:
    return {
        "advertise-address": HOST,
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "bind-address": HOST,
        "cert-dir": CERTIFICATES,
        "enable-admission-plugins": "NodeRestriction",
        "etcd-servers": ETCD,
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": f"https://kubernetes.default.svc.{DOMAIN}",
        "service-account-key-file": SERVICE_ACCOUNT_KEY,
        "service-account-signing-key-file": SERVICE_ACCOUNT_KEY,
        "service-cluster-ip-range": SERVICES,
        "token-auth-file": TOKENS,
    }


def _controller_manager() -> dict[str, object]:
    return {
        "kubeconfig": kubeconfig_of("system:kube-controller-manager"),
        # Away from the API server for long it ends, as in other clusters, and begins anew. If it went on, it would
        # count all nodes as lost when the API server is back, before it has read that they are not.
        "leader-elect": "true",
        "root-ca-file": AUTHORITY,
        "service-account-private-key-file": SERVICE_ACCOUNT_KEY,
        "use-service-account-credentials": "true",
    }


def _kubelet(node: Node) -> dict[str, object]:
    return {
        "config": node.folder / "kubelet.yaml",
        "hostname-override": node.name,
        "kubeconfig": kubeconfig_of(f"system:node:{node.name}"),
        "node-ip": node.address,
    }


def _kubelet_configuration(node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        # Only this machine and the pods reach a kubelet, and they hold nothing worth a lock.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{NAME}/{node.name}",
        "clusterDNS": [DNS],
        "clusterDomain": DOMAIN,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        # The machine's disk is not the cluster's alone: it neither evicts pods nor deletes images when it is full.
        "evictionHard": dict.fromkeys(("imagefs.available", "memory.available", "nodefs.available"), "0%"),
        "imageGCHighThresholdPercent": 100,
        "failCgroupV1": False,
        "failSwapOn": False,
        "maxOpenFiles": min(1_000_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        "resolvConf": "",
    }


def _proxy(node: Node) -> dict[str, object]:
    # Limits of connection tracking are the machine's; a network namespace cannot change them.
    return {
        "cluster-cidr": PODS,
        "conntrack-max-per-core": 0,
        "conntrack-tcp-timeout-close-wait": "0s",
        "conntrack-tcp-timeout-established": "0s",
        "hostname-override": node.name,
        "kubeconfig": kubeconfig_of("system:kube-proxy"),
        "proxy-mode": "iptables",
    }


def _containerd(node: Node) -> str:
    # Only a privileged process may protect itself from the kernel's out-of-memory killer: restrict_oom_score_adj.
    return f"""\
version = 3

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/usr/lib/cni']
conf_dir = '{node.folder}/cni'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
options = {{ SystemdCgroup = false }}
"""


def _cni(node: Node) -> dict[str, Any]:
    """Each pod has a cable of its own and no bridge: all its traffic passes the node's FORWARD chain."""
    addresses = {"type": "host-local", "ranges": [[{"subnet": node.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": addresses},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _flags(options: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items()]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
