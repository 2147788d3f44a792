"""Role certificates on a real API server: what it makes, checks, leaves alone and takes away."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from behaviour.certificates import Authority
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store
from kubernetes import client

from cluster import cert_manager
from cluster.plays import Item, Play, cluster_file, must_run, namespace, run_steps

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

    def predict(self, **more: Any) -> Play:
        return must_run(self.folder, "certificates", self.variables(**more), "--check", "--diff")

    def steps(self, *steps: Item) -> list[Play]:
        """The role once for each, showing as much as it can."""
        given = [self.variables(**step) for step in steps]
        return run_steps(self.folder, "certificates", given, "--diff", "-vvv")

    def secret(self, name: str = "envoy-certs") -> dict[str, str]:
        data = self.core.read_namespaced_secret(name, self.namespace).data or {}
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def secrets(self) -> dict[str, str]:
        """Every Secret of the namespace, by which a change of any is seen."""
        listed = self.core.list_namespaced_secret(self.namespace).items
        return {item.metadata.name: item.metadata.resource_version for item in listed}

    def leaf(self, name: str = "envoy-certs") -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.secret(name)["tls.crt"].encode())

    def put(self, name: str, data: dict[str, bytes]) -> None:
        """A Secret by somebody else's hand."""
        body = {"metadata": {"name": name}, "data": {key: base64.b64encode(data[key]).decode() for key in data}}
        try:
            self.core.create_namespaced_secret(self.namespace, body)
        except client.ApiException:
            self.core.patch_namespaced_secret(name, self.namespace, body)

    def trusted(self, authority: str, days: float = 0) -> bool:
        """Whether a client that has an authority believes what the Secret serves, for a name of the inventory."""
        store = Store(x509.load_pem_x509_certificates(authority.encode()))
        when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        verifier = PolicyBuilder().store(store).time(when).build_server_verifier(x509.DNSName("shop.example.com"))
        try:
            verifier.verify(self.leaf(), [])
        except x509.verification.VerificationError:
            return False
        return True


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    kubeconfig = cluster_file()
    with namespace(kubeconfig, "certs") as (name, core):
        yield Shop(tmp_path, kubeconfig, name, core)


def changes(plays: list[Play]) -> list[list[str]]:
    """What each step changed; none may fail."""
    assert [play.failure for play in plays if play.code] == []
    return [play.changed for play in plays]


def must_hide(output: str, key: str) -> None:
    """Fails when a private key is in an output, as it is or as Secrets have it."""
    secret = base64.b64encode(key.encode()).decode()
    for part in (key.splitlines()[1], secret[48:96], secret[-96:-48]):
        assert part not in output


@pytest.mark.thorough
def test_a_secret_is_made_kept_and_renewed_under_the_same_authority(shop: Shop) -> None:
    assert shop.predict().changed[-1] == "Tell which Secrets would be written"
    assert shop.secrets() == {}
    assert not (shop.folder / "certificates").exists()

    plays = shop.steps({}, {})
    made, again = changes(plays)
    first, leaf = shop.secret(), shop.leaf()
    assert "Write the Secrets" in made
    assert again == []
    assert shop.core.read_namespaced_secret("envoy-certs", shop.namespace).type == "kubernetes.io/tls"
    assert shop.trusted(first["ca.crt"])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["shop.example.com", "10.0.0.1"]
    keys = list((shop.folder / "certificates").rglob("tls.key"))
    assert [oct(path.stat().st_mode & 0o777) for path in keys] == ["0o600", "0o600"]
    for path in keys:
        must_hide(plays[0].output, path.read_text())

    # Nearly every day of ten years is "soon"; then the authority would end before a certificate, and is renewed.
    soon = {"certificates_renew_days": 3648, "certificates_days": 3649, "certificates_authority_days": 3655}
    rotated = {"certificates_days": 3652, "certificates_authority_days": 3655}
    more = {**rotated, "certificates_subject_alt_names": [*NAMES, "DNS:new.example.com"]}
    renewal, rotation, again, signed = changes(shop.steps(soon, rotated, rotated, more))
    assert "Sign the certificates" in renewal
    assert "Sign the authority by itself" not in renewal
    assert "Sign the authority by itself" in rotation
    assert "Sign the certificates" not in rotation
    assert again == []
    assert "Sign the certificates" in signed
    new = shop.secret()["ca.crt"]
    assert new != first["ca.crt"]
    assert shop.leaf().public_key() == leaf.public_key()
    # Whoever has the older one believes what the renewed one signs, until it ends.
    assert [shop.trusted(first["ca.crt"], days) for days in (0, 3649, 3651)] == [True, True, False]
    assert [shop.trusted(new, days) for days in (0, 3651)] == [True, True]


@pytest.mark.thorough
def test_without_the_authoritys_folder_secrets_are_kept_and_never_silently_replaced(shop: Shop) -> None:
    lost, other = ({"certificates_path": str(shop.folder / name)} for name in ("lost", "other"))
    more = [*NAMES, "DNS:new.example.com"]
    made, kept, refused, replaced, again, former = shop.steps(
        {},
        lost,
        {**lost, "certificates_subject_alt_names": more},
        {**other, "certificates_replace_authority": True},
        other,
        {},
    )
    assert [made.code, kept.code, kept.changed] == [0, 0, []]
    assert f"{shop.folder}/lost/authority is not there, but that of the Secrets envoy-certs" in refused.failure
    assert "certificates_replace_authority: true" in refused.failure
    assert refused.changed == []
    assert not (shop.folder / "lost").exists()
    assert [replaced.code, again.code, again.changed] == [0, 0, []]
    # And the first controller, which has another authority now.
    assert "/certificates/authority is another authority than that of the Secrets envoy-certs" in former.failure
    assert former.changed == []
    assert not shop.trusted((shop.folder / "certificates/authority/tls.crt").read_text())
    assert shop.trusted((shop.folder / "other/authority/tls.crt").read_text())


@pytest.mark.thorough
def test_existing_secrets_are_checked_all_at_once_and_never_changed(shop: Shop) -> None:
    authority = Authority(shop.folder, "authority")
    certificate = authority.issue(shop.folder / "good", "good", "*.example.com")
    authority.issue(shop.folder / "other", "other", "*.example.com")
    authority.issue(shop.folder / "ended", "ended", "*.example.com", hours=-0.5)
    good, other, ended = (
        {file: (shop.folder / name / file).read_bytes() for file in ("tls.crt", "tls.key")}
        for name in ("good", "other", "ended")
    )
    shop.put("good", good)
    shop.put("mixed", {**good, "tls.key": other["tls.key"]})
    shop.put("keyless", {"tls.crt": good["tls.crt"], "ca.crt": b"x"})
    shop.put("damaged", {**good, "tls.crt": certificate.public_bytes(Encoding.DER)})
    shop.put("ended", ended)
    shop.put("narrow", good)
    before = shop.secrets()
    existing: Item = {"certificates_source": "existing", "certificates_subject_alt_names": []}
    names = ["good", "mixed", "keyless", "damaged", "ended", "narrow", "missing"]
    served = {"good": ["DNS:shop.example.com"]}
    wanted = {**served, "narrow": ["DNS:a.b.example.com", "DNS:shop.example.com", "DNS:example.com"]}
    fine, refused = shop.steps(
        {**existing, "certificates_names": ["good"], "certificates_subject_alt_names_for": served},
        {**existing, "certificates_names": names, "certificates_subject_alt_names_for": wanted},
    )
    assert changes([fine]) == [[]]
    soon = next(result["msg"] for name, result in fine.tasks if name == "Tell which end soon")
    assert soon.startswith("Fewer than 30 days are left to the certificates in Secrets good of namespace")

    lines = refused.failure.splitlines()
    problems = {line.split(":")[0].rpartition("/")[2]: line.partition(": ")[2] for line in lines}
    assert sorted(problems) == sorted(set(names) - {"good"})
    assert problems["mixed"].startswith("tls.key is not the key of the certificate in tls.crt")
    assert problems["keyless"].startswith("has no tls.key, only ca.crt, tls.crt")
    assert problems["damaged"].startswith("tls.crt is no certificate in PEM")
    assert problems["ended"].startswith("the certificate ended on 20")
    assert problems["narrow"].startswith("the certificate is not for DNS:a.b.example.com, DNS:example.com, only for")
    assert problems["missing"].startswith("does not exist")
    assert shop.secrets() == before
    for pair in (good, other):
        must_hide(refused.output, pair["tls.key"].decode())


@pytest.mark.thorough
def test_what_left_the_inventory_goes_and_what_is_somebody_elses_stays(shop: Shop) -> None:
    shop.put("theirs", {"tls.crt": b"x"})
    refused, made = shop.steps({"certificates_names": ["theirs"]}, {"certificates_names": ["one", "two", "three"]})
    assert "certificates_names: the Secrets theirs in namespace" in refused.failure
    assert "certificates_source: existing" in refused.failure
    assert made.code == 0
    shop.put("three", {"tls.crt": shop.secret("one")["tls.crt"].encode()})
    assert removed(shop.predict(certificates_names=["one"])) == ["two"]

    one = {"certificates_names": ["one"]}
    later, pruned, ended = shop.steps(
        {**one, "certificates_prune": False},
        {**one, "tasks_from": "prune"},
        {"certificates_names": ["one", "two", "three"], "tasks_from": "reset"},
    )
    assert changes([later]) == [[]]
    # Three has another content than was made, so it is in somebody's use.
    assert [removed(pruned), removed(ended)] == [["two"], ["one"]]
    assert sorted(shop.secrets()) == ["theirs", "three"]
    assert not list((shop.folder / "certificates").rglob("*"))


def removed(play: Play) -> list[str]:
    """Names of the objects that a play removed, or would have."""
    assert not play.code, play.failure
    results = next(result["results"] for name, result in play.tasks if name == "Remove what left the inventory")
    return [result["item"]["name"] for result in results if result.get("changed")]


def test_a_right_that_is_missing_is_named(shop: Shop) -> None:
    reader = {"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}
    rights: Any = client.RbacAuthorizationV1Api()
    rights.create_namespaced_role(shop.namespace, {"metadata": {"name": "reader"}, **reader})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": shop.namespace}
    binding = {"metadata": {"name": "reader"}, "roleRef": role, "subjects": [subject]}
    rights.create_namespaced_role_binding(shop.namespace, binding)
    nobody, limited = ({"certificates_kubeconfig": str(account(shop, name))} for name in ("nobody", "reader"))
    reading, listing = shop.steps(nobody, {**limited, "tasks_from": "prune"})
    who = f'User "system:serviceaccount:{shop.namespace}:'
    for play, name, verb in ((reading, "nobody", "get"), (listing, "reader", "list")):
        assert f"The Secrets of namespace {shop.namespace} cannot be" in play.failure
        assert f'{who}{name}" cannot {verb} resource "secrets"' in play.failure
        assert "Bind ClusterRole admin in the namespace" in play.failure
        assert "HTTP" not in play.failure


def account(shop: Shop, name: str) -> Path:
    """A kubeconfig for a new ServiceAccount."""
    shop.core.create_namespaced_service_account(shop.namespace, {"metadata": {"name": name}})
    token = shop.core.create_namespaced_service_account_token(name, shop.namespace, {"spec": {}}).status.token
    kubeconfig = yaml.safe_load(shop.kubeconfig.read_text())
    kubeconfig["users"] = [{"name": name, "user": {"token": token}}]
    for context in kubeconfig["contexts"]:
        context["context"]["user"] = name
    limited = shop.folder / f"{name}.json"
    limited.write_text(json.dumps(kubeconfig))
    return limited


def test_what_cannot_be_asked_of_cert_manager_is_told(shop: Shop) -> None:
    asked = {"certificates_source": "cert_manager", "certificates_issuer": {"name": "own"}}
    if cert_manager.kinds(client.ApiClient()):
        pytest.skip("the cluster has cert-manager")
    without, nameless, unknown = shop.steps(
        asked,
        {**asked, "certificates_subject_alt_names": []},
        {**asked, "certificates_subject_alt_names_for": {"envoy-cert": ["DNS:x.example.com"]}},
    )
    assert "the cluster has no kind Certificate of cert-manager.io/v1" in without.failure
    assert "certificates_subject_alt_names: has no name for envoy-certs" in nameless.failure
    assert (
        "certificates_subject_alt_names_for: envoy-cert is not in certificates_names (envoy-certs)" in unknown.failure
    )


def test_cert_manager_takes_over_and_gives_back(shop: Shop) -> None:
    both = {"certificates_names": ["envoy-certs", "admin-certs"]}
    asked = {"certificates_source": "cert_manager", "certificates_issuer": {"name": "own"}, "certificates_timeout": 60}
    nobodys = {**asked, "certificates_issuer": {"name": "nobody"}, "certificates_timeout": 10}
    with (
        cert_manager.definitions(client.ApiClient()),
        cert_manager.controllers(shop.kubeconfig, shop.namespace, shop.folder / "cert-manager.log"),
    ):
        cert_manager.make_issuer(client.ApiClient(), shop.namespace, "own")
        made, refused, issued, pruned, again = shop.steps({}, nobodys, {**asked, **both}, asked, asked)
        told = next(result["msg"] for name, result in refused.tasks if name == "Tell what cert-manager says")
        assert f"cert-manager has not issued the certificates of namespace {shop.namespace} within 10 s" in told
        assert 'envoy-certs: Referenced "Issuer" not found: issuer.cert-manager.io "nobody" not found' in told
        assert [made.code, issued.code, issued.failure] == [0, 0, ""]
        assert removed(pruned) == ["admin-certs", "admin-certs"]
        assert again.changed == []
        theirs = shop.secret()
        assert shop.trusted(theirs["ca.crt"])
        assert not shop.trusted((shop.folder / "certificates/authority/tls.crt").read_text())
        must_hide(again.output, theirs["tls.key"])

        replace = {"certificates_replace_authority": True}
        refused, lost, back, again = shop.steps({}, {"certificates_path": str(shop.folder / "lost")}, replace, {})
        assert "/certificates/authority is another authority than that of the Secrets envoy-certs" in refused.failure
        assert "/lost/authority is not there, but that of the Secrets envoy-certs" in lost.failure
        assert "Take over from cert-manager" in back.changed
        assert [back.code, again.code, again.changed] == [0, 0, []]
        assert shop.trusted((shop.folder / "certificates/authority/tls.crt").read_text())
        assert cert_manager.certificates(client.ApiClient(), shop.namespace) == ["own"]
