"""What a metrics listener says, under the names of the admin interface."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import admin, metrics

# From Envoy 1.40.
ANSWER = """\
# TYPE envoy_cluster_update_rejected counter
envoy_cluster_update_rejected{envoy_cluster_name="service-a"} 1

# TYPE envoy_cluster_manager_cds_update_rejected counter
envoy_cluster_manager_cds_update_rejected{} 3
# TYPE envoy_http_rds_update_rejected counter
envoy_http_rds_update_rejected{envoy_rds_route_config="front_80",envoy_http_conn_manager_prefix="front_80"} 2
envoy_listener_manager_lds_update_rejected{} 0
envoy_sds_update_rejected{envoy_xds_resource_name="certs"} 0
envoy_cluster_manager_warming_clusters{} 1
envoy_listener_manager_total_listeners_warming{} 2
envoy_server_days_until_first_cert_expiring{} 19
envoy_cluster_membership_healthy{envoy_cluster_name="service-a"} 4
envoy_cluster_version_text{envoy_cluster_name="service-a",text_value="1e84cd80d1b8"} 0
envoy_cluster_manager_cds_version_text{text_value="5253ea85186c"} 0
envoy_http_rds_version_text{envoy_rds_route_config="front_80",text_value="ebed54"} 0
envoy_listener_manager_lds_version_text{text_value=""} 0
envoy_sds_version_text{envoy_xds_resource_name="certs",text_value="afa974ade6ad"} 0
envoy_unknown{} 7
"""
FILES = ("cds.yaml", "lds.yaml", "rds.front_80.yaml", "eds.service-a.yaml", "sds.certs.yaml")


def test_versions_and_refusals_are_found_as_on_the_admin_interface() -> None:
    stats = metrics.stats(ANSWER)
    versions = [admin.accepted_version(stats, name) for name in FILES]
    assert versions == ["5253ea85186c", "", "ebed54", "1e84cd80d1b8", "afa974ade6ad"]
    assert [admin.refusals(stats, name) for name in FILES] == [3, 0, 2, 1, 0]
    assert admin.pending(stats, {}) == ["cds.yaml", "lds.yaml"]
    assert stats["server.days_until_first_cert_expiring"] == "19"
    assert stats["cluster.service-a.membership_healthy"] == "4"
    assert not [name for name in stats if "unknown" in name]


@pytest.mark.parametrize(
    ("page", "statistic", "asked"),
    [
        (metrics.config_page(), "http.front_80.rds.front_80.version_text", True),
        (metrics.config_page(), "cluster.service-a.update_rejected", True),
        (metrics.config_page(), "server.days_until_first_cert_expiring", True),
        (metrics.config_page(), "cluster.service-a.upstream_rq_total", False),
        (metrics.healthy_page("a"), "cluster.a.membership_healthy", True),
        (metrics.healthy_page("a"), "cluster.b.membership_healthy", False),
    ],
)
def test_no_more_is_asked_than_is_needed(page: str, statistic: str, asked: bool) -> None:
    parts = urlsplit(page)
    (pattern,) = parse_qs(parts.query)["filter"]
    assert parts.path == "/stats/prometheus"
    assert bool(re.search(pattern, statistic)) == asked


def test_the_port_that_is_there_before_and_after_is_asked_first() -> None:
    def listeners(*ports: int) -> dict[str, str]:
        return {"lds.yaml": "".join(f"- address: x\n  name: metrics_{port}\n" for port in ports)}

    assert metrics.ports(listeners(9100, 9902), listeners(9902)) == [9902, 9100]
    assert metrics.ports(listeners(9902)) == [9902]
    assert metrics.ports({"bootstrap.yaml": "    name: metrics_9100\n"}) == [9100]
    assert metrics.ports({}) == []
