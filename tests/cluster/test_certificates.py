"""Role certificates on a real API server: what it makes, checks, leaves alone and takes away."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from behaviour.certificates import Authority
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store
from kubernetes import client

from cluster.plays import Item, Play, cluster_file, must_run, namespace, run_role

NAMES = ["DNS:shop.example.com", "IP:10.0.0.1"]


@dataclass
class Shop:
    """A namespace, and the role with what it is given there."""

    folder: Path
    kubeconfig: Path
    namespace: str
    core: client.CoreV1Api

    def variables(self, **more: Any) -> Item:
        return {
            "certificates_path": str(self.folder / "certificates"),
            "certificates_namespace": self.namespace,
            "certificates_kubeconfig": str(self.kubeconfig),
            "certificates_mesh": "shop",
            "certificates_subject_alt_names": NAMES,
            **more,
        }

    def must_run(self, *options: str, **more: Any) -> Play:
        return must_run(self.folder, "certificates", self.variables(**more), *options)

    def refused(self, **more: Any) -> str:
        play = run_role(self.folder, "certificates", self.variables(**more))
        assert play.code
        return play.failure

    def secret(self, name: str = "envoy-certs") -> dict[str, str]:
        data = self.core.read_namespaced_secret(name, self.namespace).data or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def secrets(self) -> dict[str, str]:
        """Every Secret of the namespace, by which a change of any is seen."""
        listed = self.core.list_namespaced_secret(self.namespace).items
        return {item.metadata.name: item.metadata.resource_version for item in listed}

    def leaf(self, name: str = "envoy-certs") -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.secret(name)["tls.crt"].encode())

    def put(self, name: str, data: dict[str, str]) -> None:
        """A Secret by somebody else's hand."""
        metadata = {"name": name}
        try:
            self.core.create_namespaced_secret(self.namespace, {"metadata": metadata, "stringData": data})
        except client.ApiException:
            self.core.patch_namespaced_secret(name, self.namespace, {"stringData": data})


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    kubeconfig = cluster_file()
    with namespace(kubeconfig, "certs") as (name, core):
        yield Shop(tmp_path, kubeconfig, name, core)


def trusted(shop: Shop, authority: str) -> bool:
    """Whether a client that has an authority believes what the Secret serves, for a name of the inventory."""
    store = Store(x509.load_pem_x509_certificates(authority.encode()))
    verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName("shop.example.com"))
    try:
        verifier.verify(shop.leaf(), [])
    except x509.verification.VerificationError:
        return False
    return True


def test_a_secret_is_made_kept_and_renewed_under_the_same_authority(shop: Shop) -> None:
    predicted = shop.must_run("--check", "--diff")
    assert predicted.changed[-1] == "Tell which Secrets would be written"
    assert shop.secrets() == {}
    assert not (shop.folder / "certificates").exists()

    play = shop.must_run("--diff", "-vvv")
    first, leaf = shop.secret(), shop.leaf()
    assert "Write the Secrets" in play.changed
    assert shop.core.read_namespaced_secret("envoy-certs", shop.namespace).type == "kubernetes.io/tls"
    assert trusted(shop, first["ca.crt"])
    secret = base64.b64encode(first["tls.key"].encode()).decode()
    assert first["tls.key"].splitlines()[1] not in play.output
    assert secret[:60] not in play.output
    keys = (shop.folder / "certificates").rglob("tls.key")
    assert [oct(path.stat().st_mode & 0o777) for path in keys] == ["0o600", "0o600"]
    assert shop.must_run().changed == []

    # Nearly every day of its year is "soon", and the authority would end before a new certificate.
    soon = {"certificates_renew_days": 3648, "certificates_days": 3649, "certificates_authority_days": 3655}
    renewed = shop.must_run(**soon)
    assert "Sign the authority by itself" not in renewed.changed
    assert shop.leaf().serial_number != leaf.serial_number
    assert shop.leaf().public_key() == leaf.public_key()
    assert trusted(shop, first["ca.crt"])

    rotated = {"certificates_days": 3652, "certificates_authority_days": 3655}
    assert "Sign the authority by itself" in shop.must_run(**rotated).changed
    assert shop.secret()["ca.crt"] != first["ca.crt"]
    assert trusted(shop, first["ca.crt"])
    assert trusted(shop, shop.secret()["ca.crt"])
    assert shop.must_run(**rotated).changed == []


def test_without_the_authoritys_folder_secrets_are_kept_and_never_silently_replaced(shop: Shop) -> None:
    shop.must_run()
    first, before = shop.secret(), shop.secrets()
    elsewhere = {"certificates_path": str(shop.folder / "elsewhere")}
    assert shop.must_run(**elsewhere).changed == []
    assert not (shop.folder / "elsewhere").exists()

    failure = shop.refused(certificates_subject_alt_names=[*NAMES, "DNS:new.example.com"], **elsewhere)
    assert f"{shop.folder}/elsewhere/authority is not there, but that of the Secrets envoy-certs" in failure
    assert "certificates_replace_authority: true" in failure
    assert shop.secrets() == before

    replaced = {**elsewhere, "certificates_replace_authority": True}
    shop.must_run(**replaced)
    assert not trusted(shop, first["ca.crt"])
    assert shop.must_run(**elsewhere).changed == []

    # And the first controller, which has another authority now.
    assert "/certificates/authority is another authority than that of the Secrets envoy-certs" in shop.refused()


def test_existing_secrets_are_checked_all_at_once_and_never_changed(shop: Shop) -> None:
    authority = Authority(shop.folder, "authority")
    for name in ("good", "other"):
        authority.issue(shop.folder / name, name, "*.example.com")
    good, other = (
        {file: (shop.folder / name / file).read_text() for file in ("tls.crt", "tls.key")} for name in ("good", "other")
    )
    shop.put("good", good)
    shop.put("mixed", {**good, "tls.key": other["tls.key"]})
    shop.put("keyless", {"tls.crt": good["tls.crt"], "ca.crt": "x"})
    shop.put("damaged", {**good, "tls.crt": "no certificate"})
    shop.put("narrow", good)
    before = shop.secrets()
    variables: Item = {"certificates_source": "existing", "certificates_subject_alt_names": []}
    variables["certificates_subject_alt_names_for"] = {
        "good": ["DNS:shop.example.com"],
        "narrow": ["DNS:a.b.example.com", "DNS:shop.example.com", "DNS:example.com"],
    }
    assert shop.must_run(**variables, certificates_names=["good"]).changed == []

    names = ["good", "mixed", "keyless", "damaged", "narrow", "missing"]
    failure = shop.refused(**variables, certificates_names=names)
    problems = {line.split(":")[0].rpartition("/")[2]: line.partition(": ")[2] for line in failure.splitlines()}
    assert sorted(problems) == sorted(set(names) - {"good"})
    assert problems["mixed"].startswith("tls.key is not the key of the certificate in tls.crt")
    assert problems["keyless"].startswith("has no tls.key, only ca.crt, tls.crt")
    assert problems["damaged"].startswith("tls.crt is no certificate in PEM")
    assert problems["narrow"].startswith("the certificate is not for DNS:a.b.example.com, DNS:example.com, only for")
    assert problems["missing"].startswith("does not exist")
    assert shop.secrets() == before
    assert "PRIVATE KEY" not in failure


def test_what_left_the_inventory_goes_and_what_is_somebody_elses_stays(shop: Shop) -> None:
    shop.put("theirs", {"tls.crt": "x"})
    failure = shop.refused(certificates_names=["theirs"])
    assert "certificates_names: the Secrets theirs in namespace" in failure
    assert "certificates_source: existing" in failure

    shop.must_run(certificates_names=["one", "two", "three"])
    shop.put("three", {"tls.crt": shop.secret("one")["tls.crt"]})
    shop.must_run(certificates_names=["one"], certificates_prune=False)
    assert sorted(shop.secrets()) == ["one", "theirs", "three", "two"]
    assert "Remove what left the inventory" in shop.must_run("--check", certificates_names=["one"]).changed
    assert "two" in shop.secrets()
    shop.must_run(certificates_names=["one"])
    # Three has another content than was made, so it is in somebody's use.
    assert sorted(shop.secrets()) == ["one", "theirs", "three"]

    shop.must_run(tasks_from="reset", certificates_names=["one", "two", "three"])
    assert sorted(shop.secrets()) == ["theirs", "three"]
    assert not list((shop.folder / "certificates").rglob("*"))


def test_a_right_that_is_missing_is_named(shop: Shop) -> None:
    account = "nobody"
    shop.core.create_namespaced_service_account(shop.namespace, {"metadata": {"name": account}})
    token = shop.core.create_namespaced_service_account_token(account, shop.namespace, {"spec": {}}).status.token
    kubeconfig = yaml.safe_load(shop.kubeconfig.read_text())
    kubeconfig["users"] = [{"name": account, "user": {"token": token}}]
    for context in kubeconfig["contexts"]:
        context["context"]["user"] = account
    limited = shop.folder / "limited.json"
    limited.write_text(json.dumps(kubeconfig))
    failure = shop.refused(certificates_kubeconfig=str(limited))
    assert f"The Secrets of namespace {shop.namespace} cannot be read" in failure
    assert 'cannot get resource "secrets"' in failure


def test_a_cluster_without_cert_manager_is_told(shop: Shop) -> None:
    failure = shop.refused(certificates_source="cert_manager", certificates_issuer={"name": "own"})
    assert "the cluster has no kind Certificate of cert-manager.io/v1" in failure
