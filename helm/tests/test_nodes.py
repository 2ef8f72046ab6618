"""A volume for one node is refused where there are several."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import helm_python
import pytest
import yaml
from charts import CHART

PASSED = "unable to build kubernetes objects"  # rendered; this API server knows no others


class ApiServer(BaseHTTPRequestHandler):
    """As much of Kubernetes' API as `lookup` of nodes needs."""

    nodes: tuple[dict, ...] = ()

    def do_GET(self):
        resources = [{"name": "nodes", "kind": "Node", "namespaced": False, "verbs": ["list"]}]
        items = [
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{i}"}, "spec": spec}
            for i, spec in enumerate(self.nodes)
        ]
        pages = {
            "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": resources},
            "/api/v1/nodes": {
                "kind": "NodeList",
                "apiVersion": "v1",
                "metadata": {},
                "items": items,
            },
        }
        page = pages.get(self.path.partition("?")[0])
        body = page or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}
        self.send_response(200 if page else 404)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def install():
    """Install on a cluster of these nodes; returns what stopped it."""
    handler = type("It", (ApiServer,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    cluster = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "it", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "it", "user": {}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }

    def run(*nodes, **values):
        handler.nodes = nodes
        with (
            helm_python.Config(kubeconfig_content=yaml.safe_dump(cluster)) as config,
            pytest.raises(helm_python.HelmError) as stopped,
        ):
            config.install(CHART, "madang", values, dry_run="server", namespace="shop")
        return str(stopped.value)

    yield run
    server.shutdown()


CORDONED, TAINTED = {"unschedulable": True}, {"taints": [{"key": "k", "effect": "NoSchedule"}]}


def test_several_nodes_need_another_registry(install):
    said = install({}, {}, CORDONED)
    assert "ReadWriteOnce" in said
    assert "2 nodes may run pods" in said
    for way in ("s3://bucket/folder", "[ReadWriteMany]", "kubernetes.io/hostname"):
        assert way in said


@pytest.mark.parametrize(
    ("nodes", "values"),
    [
        (({},), {}),
        (({}, CORDONED, TAINTED), {}),
        (({}, {}), {"modelRegistry": {"url": "s3://models"}}),
        (({}, {}), {"modelRegistry": {"persistence": {"accessModes": ["ReadWriteMany"]}}}),
        (({}, {}), {"modelRegistry": {"persistence": {"existingClaim": "mine"}}}),
        (({}, {}), {"nodeSelector": {"kubernetes.io/hostname": "n1"}}),
        (({}, {}), {"modelRegistry": {"persistence": {"checkNodes": False}}}),
    ],
)
def test_each_way_out_is_one(install, nodes, values):
    assert PASSED in install(*nodes, **values)
