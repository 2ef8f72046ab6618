"""Values that are wrong are refused with what is wrong."""

import helm_python
import pytest
import yaml
from charts import COMPONENTS, environment, named, objects, pods, render

from madang_targeting.caps import Caps

WRONG = [
    ({"components": {"ranker": {"replicas": "two"}}}, "/components/ranker/replicas.*want integer"),
    ({"components": {"ranger": {}}}, "'ranger' not allowed"),
    ({"components": {"ranker": {"settings": {"onnx_treads": 2}}}}, "'onnx_treads' not allowed"),
    ({"components": {"ranker": {"settings": {"onnx_threads": 0}}}}, "got 0, want 1"),
    ({"components": {"ranker": {"settings": {"port": 1}}}}, "'port' not allowed"),
    ({"components": {"ranker": {"resources": {"limits": {"cpu": "lots"}}}}}, "'lots' does not"),
    ({"components": {"ranker": {"resources": {"limits": {"memory": "1gb"}}}}}, "'1gb' does not"),
    (
        {"components": {"ranker": {"settings": {"default_deadline_seconds": 30}}}},
        "default_deadline_seconds is 30, so shutdown.graceSeconds must be at least that",
    ),
    ({"valkey": {"enabled": False}}, "externalStore.url must be set"),
    ({"valkey": {"appendfsync": "no"}}, "'always', 'everysec'"),
    ({"valkey": {"enabled": False}, "externalStore": {"url": "http://x"}}, "/externalStore/url"),
    ({"telemetry": {"samplingRatio": 2}}, "got 2, want 1"),
    ({"telemetry": {"otlpEndpoint": "http://jaeger:4317"}}, "/telemetry/otlpEndpoint"),
    ({"modelBundle": {"source": "internet"}}, "'image', 'train', 'none'"),
    ({"modelRegistry": {"url": "bucket/models"}}, "'bucket/models' does not match"),
    (
        {"modelRegistry": {"persistence": {"accessModes": ["ReadWriteTwice"]}}},
        "'ReadWriteOnce', 'ReadWriteMany'",
    ),
    ({"gateway": {"service": {"type": "Nodeport"}}}, "'NodePort'"),
    ({"gateway": {"service": {"nodePort": 99999}}}, "got 99,999, want 32,767"),
    ({"gateway": {"tls": {"enabled": True}}}, "gateway.tls.existingSecret must name a Secret"),
    (
        {
            "gateway": {
                "tls": {"enabled": True, "certManager": {"enabled": True, "dnsNames": ["x"]}}
            }
        },
        "certManager.issuer.name must name an issuer",
    ),
    (
        {
            "gateway": {
                "tls": {"enabled": True, "certManager": {"enabled": True, "issuer": {"name": "x"}}}
            }
        },
        "certManager.dnsNames must have",
    ),
    (
        {"networkPolicy": {"enabled": True}, "modelRegistry": {"url": "s3://b"}},
        "open it by networkPolicy.egress",
    ),
    ({"image": {"pullPolicy": "Sometimes"}}, "'IfNotPresent'"),
    ({"replicaCount": 3}, "'replicaCount' not allowed"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_wrong_values_are_refused_with_the_reason(values, message):
    with pytest.raises(helm_python.HelmError, match=message):
        render(**values)


def test_global_is_open_and_its_registry_counts():
    made = pods(objects(**{"global": {"imageRegistry": "r.example", "theirs": {"x": 1}}}))
    image = made["madang-ranker"]["spec"]["containers"][0]["image"]
    assert image == "r.example/madang-ranker:0.1.0"


@pytest.mark.parametrize("quantity", [2, 0.5, "500m", "1e9", "65536Ki", "1Gi", "1.5G"])
def test_every_quantity_of_kubernetes_is_one(quantity):
    limits = {"limits": {"memory": quantity}}
    assert objects(components={"ranker": {"resources": limits}})


def test_keys_without_a_value_are_as_if_they_were_not_there():
    ranker = {"settings": None, "extraEnv": None}
    nothing = {"nodeSelector": None, "podAnnotations": None, "global": None, "surfaces": None}
    assert objects(components={"ranker": ranker}, **nothing) == objects()


def test_variables_of_ones_own_replace_the_charts():
    threads = [{"name": "OMP_NUM_THREADS", "value": "4"}]
    made = pods(objects(components={"ranker": {"extraEnv": threads}}))
    names = [e["name"] for e in made["madang-ranker"]["spec"]["containers"][0]["env"]]
    assert names.count("OMP_NUM_THREADS") == 1
    assert names.count("POLARS_MAX_THREADS") == 1


def test_settings_reach_the_service_as_they_are():
    settings = {"max_message_bytes": 33554432, "log_level": "DEBUG", "onnx_threads": 2}
    made = pods(objects(components={"ranker": {"settings": settings}}))
    env = environment(made["madang-ranker"]["spec"]["containers"][0])
    assert env["MADANG_RANKER_MAX_MESSAGE_BYTES"] == "33554432"
    assert env["MADANG_RANKER_LOG_LEVEL"] == "DEBUG"
    assert env["MADANG_RANKER_ONNX_THREADS"] == "2"


def test_a_store_of_ones_own():
    store = {"url": "rediss://store.example:6380", "existingSecret": "its-password"}
    made = objects(valkey={"enabled": False}, externalStore=store)
    assert not [o for o in made if "valkey" in o["metadata"]["name"]]
    for name in COMPONENTS:
        (container,) = pods(made)[f"madang-{name}"]["spec"]["containers"]
        if name == "refresher":  # it goes through the feature store
            assert not [v for v in environment(container).values() if "store.example" in v]
            continue
        kind = "STORE" if name == "featurestore" else "LOG"
        prefix = f"MADANG_{name.upper()}_"
        assert environment(container)[f"{prefix}{kind}_URL"] == store["url"]
        (secret,) = [e for e in container["env"] if e["name"] == f"{prefix}{kind}_PASSWORD"]
        assert secret["valueFrom"]["secretKeyRef"]["name"] == "its-password"
        if name != "featurestore":
            assert environment(container)[f"{prefix}LOG_SYNCED"] == "true"


def test_documents_in_memory_in_milvus_and_in_a_milvus_of_ones_own():
    assert not [o for o in objects() if "feeder" in o["metadata"]["name"]]
    (search,) = pods(objects())["madang-search"]["spec"]["containers"]
    assert "MADANG_SEARCH_INDEX" not in environment(search)
    url = "http://madang-milvus.shop.svc.cluster.local.:19530"
    within = objects(milvus={"enabled": True})
    theirs = {"url": "https://milvus.example", "existingSecret": "key"}
    without = objects(externalMilvus=theirs)
    assert not [o for o in without if "milvus" in o["metadata"]["name"]]
    for made, server in ((within, url), (without, theirs["url"])):
        for name in ("search", "feeder"):
            (container,) = pods(made)[f"madang-{name}"]["spec"]["containers"]
            prefix = f"MADANG_{name.upper()}_"
            assert environment(container)[f"{prefix}MILVUS_URL"] == server
            secrets = [e["name"] for e in container["env"] if "valueFrom" in e]
            assert (f"{prefix}MILVUS_TOKEN" in secrets) == (made is without)
        (search,) = pods(made)["madang-search"]["spec"]["containers"]
        assert environment(search)["MADANG_SEARCH_INDEX"] == "milvus"


def test_a_registry_of_ones_own_needs_no_volume():
    registry = {"url": "s3://models", "endpointUrl": "http://minio:9000", "existingSecret": "keys"}
    made = objects(modelRegistry=registry)
    assert not [o for o in made if o["kind"] == "PersistentVolumeClaim"]
    for name in ("candidate", "ranker"):
        (container,) = pods(made)[f"madang-{name}"]["spec"]["containers"]
        env = environment(container)
        assert env[f"MADANG_{name.upper()}_MODEL_REGISTRY"] == "s3://models"
        assert env["AWS_ENDPOINT_URL"] == "http://minio:9000"
        assert [m["name"] for m in container["volumeMounts"]] == ["tmp"]


def test_the_bundles_job_is_another_when_it_shall_do_another_thing():
    def job(**bundle):
        (made,) = objects(kind="Job", modelBundle=bundle)
        return made["metadata"]["name"]

    assert job() == job(source="image")  # an upgrade leaves a finished Job alone
    assert len({job(), job(revision=2), job(source="train")}) == 3
    assert not objects(kind="Job", modelBundle={"source": "none"})


def test_surfaces_of_ones_own_are_read_by_who_needs_them():
    made = objects(surfaces={"home": {"kinds": ["SHOP"]}})
    assert "home:" in named(made, "madang-surfaces")["data"]["surfaces.yaml"]
    for name in COMPONENTS:
        (container,) = pods(made)[f"madang-{name}"]["spec"]["containers"]
        reads = f"MADANG_{name.upper()}_SURFACES" in environment(container)
        assert reads == (name in ("ranker", "consumer"))


def test_caps_of_ones_own_are_read_by_who_needs_them():
    made = objects(targetingCaps={"channels": ["fax"], "caps": [{"most": 1, "seconds": 60}]})
    file = named(made, "madang-targeting-caps")["data"]["targeting-caps.yaml"]
    assert Caps.model_validate(yaml.safe_load(file)).on("fax")[0].most == 1
    for name in COMPONENTS:
        (container,) = pods(made)[f"madang-{name}"]["spec"]["containers"]
        path = environment(container).get(f"MADANG_{name.upper()}_CAPS")
        assert path == ("/etc/madang/targeting-caps.yaml" if name == "targeting" else None)


def test_kinds_of_service_of_ones_own_are_read_by_who_needs_them():
    made = objects(etaServices={"freight": {"model": "eta-freight"}})
    file = named(made, "madang-eta-services")["data"]["eta-services.yaml"]
    assert "freight:" in file
    for name in COMPONENTS:
        (container,) = pods(made)[f"madang-{name}"]["spec"]["containers"]
        path = environment(container).get(f"MADANG_{name.upper()}_SERVICES")
        assert path == ("/etc/madang/eta-services.yaml" if name in ("eta", "refresher") else None)
        mounted = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "config"]
        assert mounted == (["/etc/madang"] if path else [])
