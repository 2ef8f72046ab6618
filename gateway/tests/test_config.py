"""What is written, and what is refused."""

import pytest

from madang_gateway.__main__ import main
from madang_gateway.clusters import cluster_table
from madang_gateway.config import GatewayConfig, Upstream
from madang_gateway.routes import route_table

CANARY = Upstream(stable="127.0.0.1:1", canary="ranker-canary:2", canary_percent=15, health_port=3)
CONFIG = GatewayConfig(upstreams={"ranker": CANARY}, port=4, admin_port=5)


def test_weights_add_up_and_canaries_have_clusters():
    (table,) = route_table(CONFIG)["resources"]
    for route in table["virtual_hosts"][0]["routes"]:
        weights = [c["weight"] for c in route["route"]["weighted_clusters"]["clusters"]]
        assert weights == [85, 15]
    stable, canary = cluster_table(CONFIG)["resources"]
    assert (stable["name"], stable["type"]) == ("ranker-stable", "STATIC")
    assert (canary["name"], canary["cluster_type"]["name"]) == (
        "ranker-canary",
        "envoy.clusters.dns",
    )


GOOD = "{upstreams: {ranker: {stable: 'ranker:50051'}}, port: 8080, admin_port: 9901}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("ranker:", "ranger:"), "no service of the mesh: ranger"),
        (("ranker:50051", "ranker"), "upstreams.ranker.stable"),
        (("8080", "80800"), "port"),
        (("stable: ", "canary_percent: 101, stable: "), "canary_percent"),
        (("port: 8080", "prot: 8080"), "prot"),
        (("{upstreams", "{{upstreams"), "config"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path, change, message):
    (tmp_path / "config.yaml").write_text(GOOD.replace(*change))
    with pytest.raises(SystemExit, match=message):
        main([str(tmp_path / "config.yaml"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_and_a_wrong_call(tmp_path):
    with pytest.raises(SystemExit, match="none"):
        main([str(tmp_path / "none.yaml"), str(tmp_path)])
    with pytest.raises(SystemExit, match="usage"):
        main([])
