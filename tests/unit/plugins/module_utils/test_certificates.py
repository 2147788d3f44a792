"""Names of certificates, and what is wrong with Secrets. Real certificates are in tests/cluster."""

from __future__ import annotations

import base64
import hashlib

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.certificates import (
    covers,
    secret_problems,
    tls_secrets,
    unchanged,
)


@pytest.mark.parametrize(
    ("own", "wanted", "good"),
    [
        ("DNS:a.example.com", "DNS:A.example.com", True),
        ("DNS:*.example.com", "DNS:a.example.com", True),
        ("DNS:*.example.com", "DNS:a.b.example.com", False),
        ("DNS:*.example.com", "DNS:example.com", False),
        ("DNS:*.example.com", "DNS:*.example.com", True),
        ("DNS:10.0.0.1", "IP:10.0.0.1", False),
        ("DNS:*.0.0.1", "IP:10.0.0.1", False),
    ],
)
def test_names_that_cover_others(own: str, wanted: str, good: bool) -> None:
    assert covers(own, wanted) == good


def test_a_certificate_that_has_ended_or_not_begun() -> None:
    secrets = {"s": {"data": {"tls.crt": "x", "tls.key": "x"}}}
    same = {"public_key_fingerprints": {"sha256": "a"}}
    ended = {**same, "not_after": "20250102000000Z", "expired": True, "subject_alt_name": None}
    early = {**ended, "expired": False, "not_before": "20990102000000Z", "valid_at": {"now": False}}
    for info, problem in ((ended, "ended on 2025-01-02; renew it"), (early, "is not valid before 2099-01-02")):
        assert list(secret_problems(secrets, "n", {"s": info}, {"s": same}, {"s": []})) == [
            f"Secret n/s: the certificate {problem}"
        ]


FILES = {"a/tls.crt": b"certificate", "a/tls.key": b"key", "authority/tls.crt": b"authority"}
SUMS = {f"/c/{name}": hashlib.sha1(content).hexdigest() for name, content in FILES.items()}


@pytest.mark.parametrize("changed", [None, "tls.crt", "tls.key", "ca.crt"])
def test_secrets_that_have_what_the_folder_has(changed: str | None) -> None:
    """Also one whose files and Secret were changed alike, for this role has not written that."""
    (secret,) = tls_secrets({name: base64.b64encode(content).decode() for name, content in FILES.items()}, ["a"], {})
    assert unchanged({"a": secret}, ["a", "b"], SUMS, "/c") == ["a"]
    if changed:
        secret["data"][changed] = base64.b64encode(b"other").decode()
        assert unchanged({"a": secret}, ["a"], SUMS, "/c") == []
    theirs = hashlib.sha1(b"other").hexdigest()
    assert unchanged({"a": secret}, ["a"], SUMS | {"/c/a/tls.crt": theirs}, "/c") == []
