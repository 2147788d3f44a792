# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks: on Kubernetes a pod that shows the token of its service account, which the API server is asked about;
on one machine a process of the user, who can read the mesh's token.

Source: Kubernetes docs, "Managing Service Accounts", bound service account tokens, and "TokenReview".
"""

import asyncio
import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import kube, names
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_proxies import PODS, object_path
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_pod import CONFIG_VOLUME

from control_plane.server import Identify, Identity, UnknownPeerError

Object = dict[str, Any]

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
REMEMBERED_SECONDS = 600.0
"""How long a token is believed that was asked about, so that proxies come back while the API server is away."""
_POD = "authentication.kubernetes.io/pod-name"
_LARGEST_TOKEN = 16384
_MOST = 10_000


async def on_loopback(context: Any) -> Identity | None:
    """Whoever is on this machine may ask for every proxy."""
    kind, _rest, address = context.peer().partition(":")
    host = address.rpartition(":")[0].removeprefix("%5B").removesuffix("%5D")
    try:
        return Identity() if kind in ("ipv4", "ipv6") and ipaddress.ip_address(host).is_loopback else None
    except ValueError:
        return None


def by_secret(path: Path) -> Identify:
    """Lets in who shows the token that a file has, for every proxy: all of them are processes of the same user."""

    async def identify(context: Any) -> Identity:
        shown = str(dict(context.invocation_metadata() or ()).get(names.TOKEN_HEADER, ""))
        try:
            token = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise UnknownPeerError(f"the mesh's token cannot be read: {exc}") from exc
        if not token or not hmac.compare_digest(shown.encode(), token.encode()):
            raise UnknownPeerError(f"{names.TOKEN_HEADER}: is not the token of this mesh")
        return Identity()

    return identify


def by_token(cluster: kube.Cluster, namespace: str, audience: str) -> Identify:
    """Identifies the pod of a token: its name, and the ConfigMap that it was started with."""
    known: OrderedDict[str, tuple[float, Identity]] = OrderedDict()

    async def identify(context: Any) -> Identity:
        metadata = dict(context.invocation_metadata() or ())
        token = str(metadata.get(names.TOKEN_HEADER, ""))
        if not token or len(token) > _LARGEST_TOKEN:
            raise UnknownPeerError(f"{names.TOKEN_HEADER}: has no token of a service account")
        digest = hashlib.sha256(token.encode()).hexdigest()
        when, identity = known.get(digest, (0.0, None))
        if identity is None or time.monotonic() - when > REMEMBERED_SECONDS:
            try:
                identity = await asyncio.to_thread(_asked, cluster, namespace, audience, token)
            except kube.ApiError as exc:
                # Whom it has let in before may come back.
                if identity is None or exc.status not in (0, 429, 500, 502, 503, 504):
                    raise UnknownPeerError(f"the API server cannot be asked whose token it is: {exc.message}") from exc
            else:
                known[digest] = (time.monotonic(), identity)
                known.move_to_end(digest)
                while len(known) > _MOST:
                    known.popitem(last=False)
        return identity

    return identify


def may_ask(cluster: kube.Cluster) -> bool:
    """Whether the API server would tell this process whose a token is. Raises ApiError.

    Source: Kubernetes docs, "Authorization", checking API access.
    """
    attributes = {"group": "authentication.k8s.io", "resource": "tokenreviews", "verb": "create"}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    answer = kube.call(
        cluster, "POST", ACCESS_REVIEWS, body={**body, "spec": {"resourceAttributes": attributes}}, retries=0
    )
    return bool(answer["status"]["allowed"])


def _asked(cluster: kube.Cluster, namespace: str, audience: str, token: str) -> Identity:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    review = {**body, "spec": {"token": token, "audiences": [audience]}}
    status = kube.call(cluster, "POST", REVIEWS, body=review, retries=1).get("status") or {}
    if not status.get("authenticated") or audience not in (status.get("audiences") or []):
        raise UnknownPeerError(f"the token is not one for {audience}: {status.get('error', 'it was not accepted')}")
    user = status.get("user") or {}
    pods = (user.get("extra") or {}).get(_POD) or []
    if not str(user.get("username", "")).startswith(f"system:serviceaccount:{namespace}:") or not pods:
        raise UnknownPeerError(f"the token is {user.get('username')}'s, and not that of a pod in namespace {namespace}")
    pod = kube.call(cluster, "GET", object_path(PODS, namespace, pods[0]), retries=1)
    return Identity(node=pods[0], proxy=_config_map(pod))


def _config_map(pod: Object) -> str:
    volumes = (volume for volume in pod["spec"].get("volumes") or [] if volume["name"] == CONFIG_VOLUME)
    found = next((volume["configMap"]["name"] for volume in volumes if "configMap" in volume), None)
    if not found:
        raise UnknownPeerError(f"pod {pod['metadata']['name']} has no configuration of a mesh")
    return str(found)
