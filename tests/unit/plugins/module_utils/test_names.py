"""Names."""

from __future__ import annotations

import re

from ansible_collections.sidecar.mesh.plugins.module_utils import names
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_fields import PATTERNS


def test_names_of_a_service() -> None:
    assert names.dns_name("a", "prod", "cluster.local") == "a.prod.svc.cluster.local"
    assert names.hosts("a", "prod", "my.domain") == ["a", "a.prod", "a.prod.svc", "a.prod.svc.my.domain"]
    assert names.upstream_variable("service-b-2") == "UPSTREAM_SERVICE_B_2"


def test_names_of_files() -> None:
    assert names.listener("egress", 8788) == "egress_8788"
    assert names.routes_file("egress_8788") == "rds.egress_8788.yaml"
    assert names.endpoints_file("service-b") == "eds.service-b.yaml"
    assert names.secret_file("envoy-certs") == "sds.envoy-certs.yaml"


def test_whose_listener_it_is() -> None:
    found = {direction: names.is_egress(names.listener(direction, 80)) for direction in ("ingress", "egress", "front")}
    assert found == {"ingress": False, "egress": True, "front": False}


def test_no_two_replicas_share_a_name() -> None:
    workloads = ["a", "a-1", "a-1-1", "a-11", "a-2"]
    every = [names.instance(workload, index) for workload in workloads for index in range(1, 120)]
    assert len(set(every)) == len(every)


def test_no_service_can_be_named_like_a_cluster_of_the_proxys_own() -> None:
    label = PATTERNS["dns_label"][0]
    for name in (names.APPLICATION_CLUSTER, names.ADMIN_CLUSTER, names.COLLECTOR_CLUSTER):
        assert re.fullmatch(label, name) is None
