# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to the API server of a Kubernetes cluster: JSON in, JSON out, from any number of threads.

Where the cluster is and who asks it is found by the ``kubernetes`` client; the options are those of kubernetes.core.
Its models are not used: for a thousand objects they take longer than the API server.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

with contextlib.suppress(ImportError):
    import urllib3
    from urllib3._collections import HTTPHeaderDict  # urllib3 1 has it nowhere else
try:
    import kubernetes
    import websocket

    HAS_KUBERNETES = True
except ImportError:
    # Which the control plane does without: it would be a third of its memory.
    HAS_KUBERNETES = False

Object = dict[str, Any]

TIMEOUT = 30.0
"""Seconds for one answer."""
WORKERS = 8
"""Connections that are kept open, and thus requests that run at the same time."""
PAGE = 500
"""Objects of one answer to a LIST."""
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

_HEADERS = {"Accept": "application/json", "User-Agent": "sidecar.mesh"}
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_RETRIES = 4
_FIRST_DELAY = 0.25
_MAX_DELAY = 5.0
_TRANSIENT = (429, 500, 502, 503, 504)

_PROXY_HEADERS = {
    "proxy_basic_auth": {"type": "str", "no_log": True},
    "basic_auth": {"type": "str", "no_log": True},
    "user_agent": {"type": "str"},
}
# kubeconfig is not no_log, which would mask each of its words (such as "default") in every result: see hidden().
AUTH_OPTIONS: dict[str, Any] = {
    "kubeconfig": {"type": "raw"},
    "context": {"type": "str"},
    "host": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "validate_certs": {"type": "bool", "aliases": ["verify_ssl"]},
    "ca_cert": {"type": "path", "aliases": ["ssl_ca_cert"]},
    "client_cert": {"type": "path", "aliases": ["cert_file"]},
    "client_key": {"type": "path", "aliases": ["key_file"], "no_log": False},
    "proxy": {"type": "str"},
    "no_proxy": {"type": "str"},
    "proxy_headers": {"type": "dict", "options": _PROXY_HEADERS},
    "persist_config": {"type": "bool"},
    "impersonate_user": {"type": "str"},
    "impersonate_groups": {"type": "list", "elements": "str"},
}
"""Options of a module that connects; their documentation is the fragment ``sidecar.mesh.kubernetes_auth``."""

_CONFIGURATION = {
    "host": "host",
    "validate_certs": "verify_ssl",
    "ca_cert": "ssl_ca_cert",
    "client_cert": "cert_file",
    "client_key": "key_file",
    "proxy": "proxy",
    "no_proxy": "no_proxy",
}
"""Options by the attribute of the client's configuration that they set."""
_VARIABLES = {
    "validate_certs": "VERIFY_SSL",
    "ca_cert": "SSL_CA_CERT",
    "client_cert": "CERT_FILE",
    "client_key": "KEY_FILE",
}
"""Second names of environment variables, as kubernetes.core has them."""


class ApiError(Exception):
    """What the API server refused; ``status`` 0 means that it did not answer at all."""

    def __init__(self, status: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}


class ConnectError(Exception):
    """There is no cluster to ask, or nobody to ask as."""


@dataclass(frozen=True)
class Resource:
    """Where objects of a kind are found."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def group(self) -> str:
        return group_of(self.api_version)

    @property
    def name(self) -> str:
        """As RBAC and kubectl write it: ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True)
class Cluster:
    """An API server, and who asks it."""

    url: str
    pool: Any
    authorization: Callable[[], dict[str, str]]
    """Headers of who asks, which change when a token expires."""
    headers: Any
    configuration: Any = None
    """Of the client, for what is not asked by ``call``."""
    discovered: dict[str, dict[str, Resource]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


# Connecting


def connect(params: Object, workers: int = WORKERS) -> Cluster:
    """The cluster that a module's options (``AUTH_OPTIONS``) or the environment name. Raises ConnectError."""
    options = {name: _option(params, name) for name in AUTH_OPTIONS}
    try:
        configuration = _configuration(options)
        configuration.connection_pool_maxsize = workers
        client = kubernetes.client.ApiClient(configuration)
    # The client raises what its parsers and authentication plugins raise.
    except Exception as exc:
        raise ConnectError(
            f"no connection to a cluster: {exc}; name a kubeconfig that is there (kubeconfig, K8S_AUTH_KUBECONFIG or "
            "KUBECONFIG), or host with api_key"
        ) from exc
    headers = HTTPHeaderDict(_HEADERS)
    if options["impersonate_user"]:
        headers.add("Impersonate-User", options["impersonate_user"])
    for group in options["impersonate_groups"] or []:
        headers.add("Impersonate-Group", group)
    if options["username"] and options["password"]:
        headers.extend(urllib3.util.make_headers(basic_auth=f"{options['username']}:{options['password']}"))

    def authorization() -> dict[str, str]:
        # The client's hook renews the token of an authentication plugin.
        settings = [setting for setting in configuration.auth_settings().values() if setting["in"] == "header"]
        return {setting["key"]: setting["value"] for setting in settings if setting["value"]}

    pool = client.rest_client.pool_manager
    return Cluster(configuration.host.rstrip("/"), pool, authorization, headers, configuration)


def connect_from_pod(workers: int = WORKERS) -> Cluster:
    """The cluster of the pod that this runs in, with the pod's own account. Raises ConnectError.

    Source: Kubernetes docs, "Accessing the Kubernetes API from a Pod".
    """
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
    token = Path(_ACCOUNT, "token")
    if not host or not token.exists():
        raise ConnectError("this is no pod of a cluster that has a token of a service account")

    def authorization() -> dict[str, str]:
        # The kubelet renews it.
        return {"Authorization": f"Bearer {token.read_text(encoding='utf-8')}"}

    pool = urllib3.PoolManager(maxsize=workers, ca_certs=str(Path(_ACCOUNT, "ca.crt")))
    address = f"[{host}]" if ":" in host else host
    return Cluster(f"https://{address}:{port}", pool, authorization, HTTPHeaderDict(_HEADERS))


def hidden(params: Object) -> Object:
    """A module's parameters as its result may show them: without what is in a kubeconfig and in ``definition``."""
    found = dict(params)
    if isinstance(found.get("kubeconfig"), dict):
        found["kubeconfig"] = "(a dictionary, not shown)"
    if found.get("definition"):
        found["definition"] = f"({len(found['definition'])} objects, not shown)"
    return found


def _option(params: Object, name: str) -> Any:
    """An option's value, else that of its environment variable, as in kubernetes.core."""
    if params.get(name) is not None:
        return params[name]
    if name == "proxy_headers":
        values = {key: os.environ.get(f"K8S_AUTH_PROXY_HEADERS_{key.upper()}") for key in _PROXY_HEADERS}
        return {key: value for key, value in values.items() if value}
    texts = (os.environ.get(f"K8S_AUTH_{word}") for word in (name.upper(), _VARIABLES.get(name, name.upper())))
    text = next(filter(None, texts), None)
    if text is None:
        return None
    if AUTH_OPTIONS[name]["type"] == "bool":
        return text.lower() not in ("0", "false", "no")
    return [word for word in text.split(",") if word] if AUTH_OPTIONS[name]["type"] == "list" else text


def _configuration(options: Object) -> Any:
    configuration = kubernetes.client.Configuration()
    _load(configuration, options)
    for name, attribute in _CONFIGURATION.items():
        if options[name] is not None:
            setattr(configuration, attribute, options[name])
    if options["api_key"]:
        configuration.api_key = {"authorization": f"Bearer {options['api_key']}"}
        configuration.api_key_prefix = {}
        configuration.refresh_api_key_hook = None
    if options["proxy_headers"]:
        configuration.proxy_headers = urllib3.util.make_headers(**options["proxy_headers"])
    if not configuration.verify_ssl:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return configuration


def _load(configuration: Any, options: Object) -> None:
    """What is known of the cluster without the other options: from a pod's own account, or a kubeconfig."""
    whole = (("username", "password"), ("api_key",), ("client_cert", "client_key"))
    if options["host"] and any(all(options[name] for name in names) for names in whole):
        return
    config = kubernetes.config
    chosen = {"context": options["context"], "client_configuration": configuration}
    chosen["persist_config"] = bool(options["persist_config"])
    if isinstance(options["kubeconfig"], dict):
        config.load_kube_config_from_dict(config_dict=options["kubeconfig"], **chosen)
        return
    if not options["kubeconfig"] and not options["context"]:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            pass
        else:
            return
    path = options["kubeconfig"] and os.path.expanduser(options["kubeconfig"])  # noqa: PTH111 (several, with a colon)
    config.load_kube_config(config_file=path, **chosen)


# Requests


def call(
    cluster: Cluster,
    method: str,
    path: str,
    query: dict[str, Any] | None = None,
    body: Any = None,
    content_type: str = "application/json",
    timeout: float = TIMEOUT,
    retries: int = _RETRIES,
) -> Object:
    """The API server's answer as a dictionary. Raises ApiError."""
    answer = text(cluster, method, path, query, body, content_type, timeout, retries)
    found: Object = json.loads(answer) if answer else {}
    return found


def text(
    cluster: Cluster,
    method: str,
    path: str,
    query: dict[str, Any] | None = None,
    body: Any = None,
    content_type: str = "application/json",
    timeout: float = TIMEOUT,
    retries: int = _RETRIES,
) -> str:
    """The API server's answer as it is, such as a container's log. Raises ApiError.

    What may be sent twice without harm is sent again after a lost connection, 429 or 5xx.
    """
    data = None if body is None else json.dumps(body)
    headers = {"Content-Type": content_type} if data is not None else {}
    address = f"{cluster.url}{path}{'?' + urlencode(query) if query else ''}"
    delay = _FIRST_DELAY
    while True:
        error, wait = None, delay
        try:
            response = cluster.pool.urlopen(
                method,
                address,
                body=data,
                headers=_headers(cluster, headers),
                timeout=urllib3.Timeout(connect=min(timeout, 10.0), read=timeout),
                retries=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            error, sent = _lost(cluster, exc), not isinstance(exc, urllib3.exceptions.NewConnectionError)
            if isinstance(exc, urllib3.exceptions.ReadTimeoutError):
                retries = min(retries, 1)  # the user has waited long enough
        else:
            if response.status < 400:
                return str(response.data.decode(errors="replace"))
            error, sent = _refusal(response), response.status != 429
            wait = _retry_after(response, delay)
        if retries <= 0 or error.status not in (0, *_TRANSIENT) or (sent and method == "POST"):
            raise error
        retries -= 1
        time.sleep(wait)
        delay = min(2 * delay, _MAX_DELAY)


@contextlib.contextmanager
def watch(cluster: Cluster, path: str, query: dict[str, Any], timeout: float) -> Iterator[Iterator[Object]]:
    """The events of a WATCH as they come, until the API server ends it. Raises ApiError.

    ``timeout``: seconds without any, after which the connection counts as lost.
    Source: Kubernetes docs, "Kubernetes API Concepts", efficient detection of changes.
    """
    address = f"{cluster.url}{path}?{urlencode({**query, 'watch': '1', 'allowWatchBookmarks': 'true'})}"
    limits = urllib3.Timeout(connect=min(timeout, 10.0), read=timeout)
    options = {"headers": _headers(cluster, {}), "timeout": limits, "retries": False, "preload_content": False}
    try:
        response = cluster.pool.urlopen("GET", address, **options)
        if response.status >= 400:
            response.read(cache_content=True)
            raise _refusal(response)
        try:
            yield _events(response)
        finally:
            response.close()
    except (urllib3.exceptions.HTTPError, OSError) as exc:
        raise _lost(cluster, exc) from exc


def _events(response: Any) -> Iterator[Object]:
    rest = b""
    for part in response.stream(65536):
        *lines, rest = (rest + part).split(b"\n")
        for line in filter(None, lines):
            event: Object = json.loads(line)
            if event["type"] == "ERROR":
                status = event["object"]
                raise ApiError(status.get("code", 0), status.get("reason", ""), status.get("message", ""))
            yield event


def forward(cluster: Cluster, namespace: str, pod: str, port: int) -> Any:
    """A socket whose other end is a port of a pod. Raises ApiError."""
    # Without it, nothing ends the wait for an API server that is mute.
    websocket.setdefaulttimeout(TIMEOUT)
    # The client alters what it is given for the time of the call.
    api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(cluster.configuration))
    call_forward = api.connect_get_namespaced_pod_portforward
    try:
        return kubernetes.stream.portforward(call_forward, pod, namespace, ports=str(port)).socket(port)
    except kubernetes.client.ApiException as exc:
        reason = str(exc.reason).partition(" -+-+- ")[0]
        raise ApiError(exc.status or 0, "NoForward", f"no port-forward to pod {pod}: {reason}") from exc


def pages(cluster: Cluster, path: str, query: dict[str, Any] | None = None) -> Iterator[Object]:
    """All objects of a LIST, each with its apiVersion and kind. Raises ApiError."""
    more = ""
    while True:
        wanted = {"limit": PAGE, **(query or {}), **({"continue": more} if more else {})}
        answer = call(cluster, "GET", path, wanted)
        kind = {"apiVersion": answer["apiVersion"], "kind": answer["kind"].removesuffix("List")}
        for item in answer.get("items") or []:
            yield {**kind, **item}
        more = answer.get("metadata", {}).get("continue", "")
        if not more:
            return


def _headers(cluster: Cluster, own: dict[str, str]) -> Any:
    found = cluster.headers.copy()
    with cluster.lock:
        found.update(cluster.authorization())
    found.update(own)
    return found


def _lost(cluster: Cluster, exc: Exception) -> ApiError:
    cause = getattr(exc, "reason", None) or exc
    return ApiError(0, "Unreachable", f"the API server {cluster.url} does not answer: {cause}")


def _refusal(response: Any) -> ApiError:
    data = response.data.decode(errors="replace")
    try:
        status = json.loads(data)
    except ValueError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {"message": data.strip()[:500]}
    message = status.get("message") or response.reason or f"HTTP {response.status}"
    return ApiError(response.status, status.get("reason") or response.reason or "", message, status.get("details"))


def _retry_after(response: Any, otherwise: float) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), _MAX_DELAY) if value.isdigit() else otherwise


# Names and paths


def group_of(api_version: str) -> str:
    return api_version.rpartition("/")[0]


def root_of(api_version: str) -> str:
    """Where the resources of an apiVersion are: ``/api/v1``, ``/apis/apps/v1``."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def resource(cluster: Cluster, api_version: str, kind: str) -> Resource:
    """Where objects of that kind are found. Raises ApiError, 404 when the API server does not know it."""
    with cluster.lock:
        known = cluster.discovered.get(api_version)
    if known is None:
        known = _discover(cluster, api_version)
        with cluster.lock:
            cluster.discovered[api_version] = known
    if kind not in known:
        raise ApiError(404, "UnknownKind", f"the API server has no kind {kind} in {api_version}")
    return known[kind]


def forget(cluster: Cluster, api_version: str) -> None:
    """Ask again which kinds there are, as a definition of one was added."""
    with cluster.lock:
        cluster.discovered.pop(api_version, None)


def _discover(cluster: Cluster, api_version: str) -> dict[str, Resource]:
    try:
        answer = call(cluster, "GET", root_of(api_version))
    except ApiError as exc:
        if exc.status == 404:
            return {}
        raise
    return {
        entry["kind"]: Resource(api_version, entry["kind"], entry["name"], entry["namespaced"])
        for entry in answer.get("resources", [])
        if "/" not in entry["name"]
    }


def list_path(found: Resource, namespace: str | None = None) -> str:
    """Path of all objects of a kind: those of a namespace, or without one all there are."""
    inside = f"/namespaces/{quote(namespace, safe='')}" if namespace and found.namespaced else ""
    return f"{root_of(found.api_version)}{inside}/{found.plural}"


def path_of(cluster: Cluster, obj: Object) -> str:
    """Path of an object, whose namespace has to be there if its kind has namespaces. Raises ApiError."""
    metadata = obj["metadata"]
    found = resource(cluster, obj["apiVersion"], obj["kind"])
    return f"{list_path(found, metadata.get('namespace'))}/{quote(metadata['name'], safe='')}"


# Texts

_CANNOT = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)


def missing_right(error: ApiError) -> str | None:
    """What a refused request needs; None when it was not refused for want of a right."""
    found = _CANNOT.search(error.message) if error.status == 403 else None
    if found is None:
        return None
    plural = f"{found['resource']}.{found['group']}" if found["group"] else found["resource"]
    where, role = "in the whole cluster", "ClusterRole and a ClusterRoleBinding"
    if found["namespace"]:
        where, role = f"in namespace {found['namespace']}", "Role and a RoleBinding"
    return f"{found['user']} may not {found['verb']} {plural} {where}: give it a {role} with verb {found['verb']}"


def why(error: ApiError) -> str:
    """An error in one line, with the remedy where the API server's words lack it."""
    if error.status == 401:
        return "the API server does not accept who asks; renew the token or the client certificate"
    return missing_right(error) or " ".join(error.message.split())
