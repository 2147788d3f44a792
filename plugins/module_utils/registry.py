# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks registries whether they have images, with the credentials that podman, buildah and docker have.

Source: OCI Distribution Specification, "Checking if content exists in the registry"; Docker docs, "Token
authentication"; containers-auth.json(5).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import ssl
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

TIMEOUT = 20.0
"""Seconds for one answer."""

_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DOCKER_HUB = "docker.io"
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class RegistryError(Exception):
    """A registry did not say whether it has an image."""


class UnusableError(RegistryError):
    """Nor would it take one; the message says what helps."""


def has(reference: str, auth_file: str = "", *, insecure: bool = False) -> bool:
    """Whether a registry has an image. Raises RegistryError, and UnusableError where that is all there is to say.

    ``insecure``: certificates are not checked, and what does not speak TLS is asked in the clear.
    """
    host, _rest, name = reference.partition("/")
    path, _rest, tag = name.rpartition(":")
    server = "registry-1.docker.io" if host == _DOCKER_HUB else host
    path = f"library/{path}" if host == _DOCKER_HUB and "/" not in path else path
    basic = credentials(host, path, auth_file)
    problem = ""
    for scheme in ("https", "http") if insecure else ("https",):
        try:
            return _asked(f"{scheme}://{server}/v2/{path}/manifests/{tag}", path, basic, insecure)
        except urllib.error.HTTPError as answer:
            raise RegistryError(f"{answer.url} answers {answer.code}") from answer
        except OSError as exc:
            problem = str(getattr(exc, "reason", exc))
        except (ValueError, LookupError, http.client.HTTPException) as exc:
            raise RegistryError(f"not understood: {exc}") from exc
    raise UnusableError(
        f"images_registry: {host} does not answer ({problem}); correct its name and port, start it, or set "
        "images_registry_insecure if it has no certificate, or one that is not trusted here"
    )


def _asked(url: str, path: str, basic: str, insecure: bool) -> bool:
    headers = {"Accept": ", ".join(_MANIFESTS)}
    status, challenge = _head(url, headers, insecure)
    if status == 401:
        kind, _rest, more = challenge.partition(" ")
        tokens = kind.lower() == "bearer"
        if tokens or basic:
            credential = _token(dict(_CHALLENGE.findall(more)), path, basic, insecure) if tokens else basic
            status, _rest = _head(url, {**headers, "Authorization": f"{kind} {credential}"}, insecure)
        # Those that give tokens may refuse one for what is not there yet.
        if status == 401 and not tokens:
            said = f"{urllib.parse.urlsplit(url).netloc} {'refuses the' if basic else 'asks for a'} login"
            remedy = "log in with podman or docker, or name a file with a login for it in images_auth_file"
            raise UnusableError(f"images_registry: {said}; {remedy}")
    if status not in (200, 404):
        raise RegistryError(f"{url} answers {status}")
    return status == 200


def _head(url: str, headers: dict[str, str], insecure: bool) -> tuple[int, str]:
    try:
        with _opened(url, "HEAD", headers, insecure) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers.get("WWW-Authenticate") or ""


def _token(challenge: dict[str, str], path: str, basic: str, insecure: bool) -> str:
    scope = {"service": challenge.get("service", ""), "scope": f"repository:{path}:pull"}
    url = f"{challenge['realm']}?{urllib.parse.urlencode(scope)}"
    with _opened(url, "GET", {"Authorization": f"Basic {basic}"} if basic else {}, insecure) as answer:
        body = json.load(answer)
    return str(body.get("token") or body["access_token"])


def _opened(url: str, method: str, headers: dict[str, str], insecure: bool) -> Any:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # A registry names the address of its tokens, which must not be a file here.
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url}: is no address of HTTP")
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    return opener.open(request, timeout=TIMEOUT)


def credentials(host: str, path: str, auth_file: str = "") -> str:
    """User and password in base64 for a registry, from the first file that has them; empty if none has."""
    for file in [Path(auth_file)] if auth_file else auth_files():
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        found = _entry(content.get("auths") or {}, host, path) or _helped(content, host)
        if found:
            return found
    return ""


def auth_files() -> list[Path]:
    """Where podman, buildah and docker keep logins, in the order in which podman looks."""
    home = Path.home()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    named = os.environ.get("REGISTRY_AUTH_FILE")
    return [
        *([Path(named)] if named else []),
        Path(runtime, "containers", "auth.json"),
        Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "containers", "auth.json"),
        Path(os.environ.get("DOCKER_CONFIG") or home / ".docker", "config.json"),
    ]


def _entry(auths: dict[str, Any], host: str, path: str) -> str:
    """The most specific login: podman keeps them by path, too."""
    parts = path.split("/")
    keys = [f"{host}/{'/'.join(parts[:size])}" for size in range(len(parts), 0, -1)] + [host, f"https://{host}"]
    if host == _DOCKER_HUB:
        keys.append("https://index.docker.io/v1/")
    return next((str(auths[key]["auth"]) for key in keys if (auths.get(key) or {}).get("auth")), "")


def _helped(content: dict[str, Any], host: str) -> str:
    """From a credential helper, the program that a file names."""
    helper = (content.get("credHelpers") or {}).get(host) or content.get("credsStore")
    if not helper:
        return ""
    server = "https://index.docker.io/v1/" if host == _DOCKER_HUB else host
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=server,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return base64.b64encode(f"{answer['Username']}:{answer['Secret']}".encode()).decode()
