# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that front proxies serve: their Secrets, and what is wrong with one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

Item = dict[str, Any]
Names = dict[str, list[str]]

KEYS = ("tls.crt", "tls.key")
"""What Envoy reads of a Secret."""

ANNOTATION = "sidecar.mesh/certificate"
"""Digest of the certificate as it was written: another one since then is somebody else's."""


def tls_secrets(contents: dict[str, str], secrets: list[str], labels: Item) -> list[Item]:
    """The Secrets of certificates, as manifests without a namespace.

    ``contents``: files of the folder of certificates in base64, by their paths in it; a certificate that is not there
    yet makes no Secret.
    """
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {
                "name": name,
                "labels": {"app.kubernetes.io/name": name, **labels},
                "annotations": {ANNOTATION: _digest(contents[f"{name}/tls.crt"])},
            },
            "data": {
                "tls.crt": contents[f"{name}/tls.crt"],
                "tls.key": contents[f"{name}/tls.key"],
                "ca.crt": contents["authority/tls.crt"],
            },
        }
        for name in secrets
        if contents.get(f"{name}/tls.crt")
    ]


def unchanged(secrets: dict[str, Item], names: list[str], sums: dict[str, str], folder: str) -> list[str]:
    """Names of Secrets that have what ``tls_secrets`` would write of a folder of certificates, and have it from there.

    ``secrets``: those there are, as the API server returns them, by name; ``sums``: SHA-1 of the folder's files, by
    path.
    """
    return [name for name in names if name in secrets and _is_unchanged(secrets[name], name, sums, folder)]


def _is_unchanged(secret: Item, name: str, sums: dict[str, str], folder: str) -> bool:
    data = secret.get("data") or {}
    files = {"tls.crt": f"{name}/tls.crt", "tls.key": f"{name}/tls.key", "ca.crt": "authority/tls.crt"}
    written = (secret["metadata"].get("annotations") or {}).get(ANNOTATION)
    return written == _digest(data.get("tls.crt", "")) and all(
        hashlib.sha1(base64.b64decode(data.get(key, "")), usedforsecurity=False).hexdigest()
        == sums.get(f"{folder}/{file}")
        for key, file in files.items()
    )


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def secret_problems(
    secrets: dict[str, Item], namespace: str, certificates: dict[str, Item], keys: dict[str, Item], wanted: Names
) -> Iterator[str]:
    """What keeps Secrets from being served, all by their names.

    ``secrets``: those there are, as the API server returns them; ``wanted``: for each Secret that must be there the
    names its certificate must be for. ``certificates`` and ``keys``: what community.crypto tells of their content, or
    its error in ``msg``.
    """
    for name, hosts in wanted.items():
        path = f"Secret {namespace}/{name}"
        if name not in secrets:
            yield f"{path}: does not exist; make it, for example with kubectl create secret tls {name}"
        else:
            data = secrets[name].get("data") or {}
            yield from _content_problems(path, data, certificates.get(name, {}), keys.get(name, {}), hosts)


def _content_problems(path: str, data: Item, certificate: Item, key: Item, wanted: list[str]) -> Iterator[str]:
    missing = [name for name in KEYS if not data.get(name)]
    if missing:
        has = f"only {', '.join(sorted(data))}" if data else "nothing"
        yield f"{path}: has no {' and no '.join(missing)}, {has}; it takes a certificate as tls.crt, its key as tls.key"
        return
    if "not_after" not in certificate:
        yield f"{path}: tls.crt is no certificate in PEM: {certificate.get('msg')}"
    if "public_key_fingerprints" not in key:
        yield f"{path}: tls.key is no private key in PEM without a passphrase: {key.get('msg')}"
    if "not_after" in certificate:
        yield from _certificate_problems(path, certificate, key, wanted)


def _certificate_problems(path: str, certificate: Item, key: Item, wanted: list[str]) -> Iterator[str]:
    fingerprints = key.get("public_key_fingerprints", certificate["public_key_fingerprints"])
    if fingerprints != certificate["public_key_fingerprints"]:
        yield f"{path}: tls.key is not the key of the certificate in tls.crt; put both there from the same pair"
    if certificate["expired"]:
        yield f"{path}: the certificate ended on {day(certificate['not_after'])}; renew it"
    elif not certificate["valid_at"]["now"]:
        yield f"{path}: the certificate is not valid before {day(certificate['not_before'])}"
    has = certificate["subject_alt_name"] or []
    lacking = [name for name in wanted if not any(covers(own, name) for own in has)]
    if lacking:
        yield (
            f"{path}: the certificate is not for {', '.join(lacking)}, only for {', '.join(has) or 'no name'}; "
            "have it issued for all names, or ask for fewer"
        )


def covers(own: str, wanted: str) -> bool:
    """Whether a certificate's name is good for a wanted one. A wildcard stands for one label (RFC 6125, 6.4.3)."""
    own, wanted = own.lower(), wanted.lower()
    if own == wanted:
        return True
    prefix = "dns:*."
    return own.startswith(prefix) and wanted.startswith("dns:") and wanted.partition(".")[2] == own[len(prefix) :]


def day(moment: str) -> str:
    """The day of an ASN.1 time, such as 2026-11-21 of 20261121220000Z."""
    return f"{moment[:4]}-{moment[4:6]}-{moment[6:8]}"
