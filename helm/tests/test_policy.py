"""What a pod may do, and who may talk to it."""

import re
from itertools import chain

import pytest
from charts import (
    COMPONENTS,
    PRESETS,
    SERVED,
    VARIANTS,
    containers,
    environment,
    named,
    objects,
    pods,
)

WITH_STORE = [name for name in COMPONENTS if name != "refresher"]


@pytest.mark.parametrize("preset", VARIANTS)
def test_no_pod_may_do_more_than_it_must(preset):
    for name, pod in pods(objects(preset)).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}, name
        assert not any("hostPath" in v for v in spec["volumes"]), name
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            image, _, tag = container["image"].rpartition(":")
            assert image, name
            assert tag not in ("", "latest"), name
            for kind in ("requests", "limits"):
                assert container["resources"][kind].keys() == {"cpu", "memory"}, name


@pytest.mark.parametrize("preset", PRESETS)
def test_probes_differ_and_stopping_takes_its_time(preset):
    for name in COMPONENTS:
        pod = pods(objects(preset))[f"madang-{name}"]["spec"]
        (container,) = pod["containers"]
        assert container["startupProbe"]["grpc"]["service"] == "live"
        assert container["livenessProbe"]["grpc"]["service"] == "live"
        assert "service" not in container["readinessProbe"]["grpc"]
        env, prefix = environment(container), f"MADANG_{name.upper()}_"
        assert env[f"{prefix}HEALTH_PORT"] == "8081"
        (_, linger) = container["lifecycle"]["preStop"]["exec"]["command"]
        drain, grace = (float(env[f"{prefix}{k}_SECONDS"]) for k in ("DRAIN", "GRACE"))
        assert float(linger) > 30, "DNS answers are kept for 30 s"
        assert grace > 5, "the longest deadline"
        assert pod["terminationGracePeriodSeconds"] > float(linger) + drain + grace


@pytest.mark.parametrize("preset", VARIANTS)
def test_services_lead_to_ports_of_pods(preset):
    made = objects(preset)
    for service in (o for o in made if o["kind"] == "Service"):
        chosen = [p for p in pods(made).values() if _selects(service["spec"]["selector"], p)]
        assert len(chosen) == 1, service["metadata"]["name"]
        ports = {p["name"] for c in containers(chosen[0]) for p in c.get("ports", ())}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports


def test_no_secret_is_written_down():
    for preset in PRESETS:
        assert not objects(preset, kind="Secret")
        for pod in pods(objects(preset)).values():
            for variable in chain(*(c.get("env", ()) for c in containers(pod))):
                if any(word in variable["name"] for word in ("PASSWORD", "SECRET", "KEY")):
                    assert "secretKeyRef" in variable["valueFrom"]


def test_uninstalling_leaves_only_claims():
    for preset in PRESETS:
        for it in objects(preset):
            marks = it["metadata"].get("annotations", {})
            if "helm.sh/resource-policy" in marks:
                assert it["kind"] == "PersistentVolumeClaim"
            if "helm.sh/hook" in marks:
                assert "hook-succeeded" in marks["helm.sh/hook-delete-policy"]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_store_is_full_before_its_pod_is(preset):
    made = objects(preset)
    conf = named([o for o in made if o["kind"] == "ConfigMap"], "madang-valkey")["data"]
    (most,) = re.findall(r"^maxmemory (\d+)([mg])b$", conf["valkey.conf"], re.MULTILINE)
    most = int(most[0]) * {"m": 1, "g": 1024}[most[1]]
    (container,) = pods(made)["madang-valkey"]["spec"]["containers"]
    assert most <= 0.7 * _mebibytes(container["resources"]["limits"]["memory"])
    (claim,) = named([o for o in made if o["kind"] == "StatefulSet"], "madang-valkey")["spec"][
        "volumeClaimTemplates"
    ]
    assert _mebibytes(claim["spec"]["resources"]["requests"]["storage"]) >= 4 * most


def test_the_laptop_preset_fits_a_laptop():
    cpus = memory = 0.0
    for made in objects("laptop"):
        if made["kind"] in ("Deployment", "StatefulSet", "Job"):
            times = made["spec"].get("replicas", 1)
            for container in made["spec"]["template"]["spec"]["containers"]:
                wanted = container["resources"]["requests"]
                cpus += times * _cpus(wanted["cpu"])
                memory += times * _mebibytes(wanted["memory"])
    assert cpus < 0.7  # twice in a rolling update, and the system's pods, on as few as 2 CPUs
    assert memory < 3 * 1024  # of 8 GiB


def test_production_scales_spreads_and_survives_a_drained_node():
    made = objects("prod")
    for name in (*SERVED, "gateway"):
        deployment = next(
            o
            for o in made
            if o["kind"] == "Deployment" and o["metadata"]["name"] == f"madang-{name}"
        )
        assert "replicas" not in deployment["spec"], "the autoscaler's"
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert {s["topologyKey"] for s in spread} == {
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        }
        scaler = named(
            [o for o in made if o["kind"] == "HorizontalPodAutoscaler"], f"madang-{name}"
        )
        assert scaler["spec"]["minReplicas"] >= 2
        named([o for o in made if o["kind"] == "PodDisruptionBudget"], f"madang-{name}")
    for preset in ("default", "prod"):
        gateway = next(
            o
            for o in objects(preset)
            if o["kind"] == "Deployment" and o["metadata"]["name"] == "madang-gateway"
        )
        assert gateway["spec"].get("replicas", 2) >= 2


@pytest.mark.parametrize("preset", VARIANTS)
def test_policies_are_closed(preset):
    over = {"networkPolicy": {"enabled": True}}
    made = objects(preset, **over)
    policies = [o for o in made if o["kind"] == "NetworkPolicy"]
    for name, pod in pods(made).items():
        (policy,) = [p for p in policies if _selects(p["spec"]["podSelector"]["matchLabels"], pod)]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"], name
        assert all(rule["ports"] for rule in policy["spec"].get("ingress") or ())
        assert all(rule["ports"] for rule in policy["spec"].get("egress") or ())
    to_all = {
        (p["metadata"]["name"], port["port"])
        for p in policies
        for rule in p["spec"].get("ingress") or ()
        if "from" not in rule
        for port in rule["ports"]
    }
    assert to_all == {("madang-gateway", 8443 if preset == "prod" else 8080)}
    from_all = {
        port["port"]
        for p in policies
        for rule in p["spec"].get("egress") or ()
        if "to" not in rule
        for port in rule["ports"]
    }
    assert from_all == ({53, 443} if preset == "prod" else {53})


def test_a_policy_lets_through_what_services_lead_to():
    """Each call that the mesh makes is allowed at both of its ends."""
    made = objects("laptop", networkPolicy={"enabled": True}, milvus={"enabled": True})
    policies = {p["metadata"]["name"]: p for p in made if p["kind"] == "NetworkPolicy"}
    every = pods(made)
    (job,) = [n for n in every if "bundle" in n]
    calls = [
        *(("madang-gateway", f"madang-{s}", port) for s in SERVED for port in (50051, 8081)),
        *((f"madang-{c}", "madang-gateway", 8080) for c in COMPONENTS[1:]),
        *((f"madang-{c}", "madang-valkey", 6379) for c in WITH_STORE),
        *((f"madang-{c}", "madang-jaeger", 4317) for c in (*COMPONENTS, "feeder", "gateway")),
        *((f"madang-{c}", "madang-milvus", 19530) for c in ("search", "feeder")),
        ("madang-feeder", "madang-valkey", 6379),
        (job, "madang-gateway", 8080),
        ("madang-verify", "madang-gateway", 8080),
        ("madang-verify", "madang-jaeger", 16686),
    ]
    for caller, callee, port in calls:
        out = _policy(policies, every[caller])["spec"]["egress"]
        into = _policy(policies, every[callee])["spec"]["ingress"]
        assert _allows(out, "to", every[callee], port), (caller, callee, port)
        assert _allows(into, "from", every[caller], port), (caller, callee, port)
    into_store = _policy(policies, every["madang-valkey"])["spec"]["ingress"]
    assert not _allows(into_store, "from", every["madang-verify"], 6379)
    into_ranker = _policy(policies, every["madang-ranker"])["spec"]["ingress"]
    assert not _allows(into_ranker, "from", every["madang-candidate"], 50051)
    into_milvus = _policy(policies, every["madang-milvus"])["spec"]["ingress"]
    assert not _allows(into_milvus, "from", every["madang-ranker"], 19530)


def _policy(policies, pod):
    return next(
        p for p in policies.values() if _selects(p["spec"]["podSelector"]["matchLabels"], pod)
    )


def _allows(rules, side, pod, port):
    return any(
        any(p["port"] == port for p in rule["ports"])
        and any(_selects(peer["podSelector"]["matchLabels"], pod) for peer in rule.get(side, ()))
        for rule in rules
    )


def _selects(labels, pod):
    return labels.items() <= pod["metadata"]["labels"].items()


def _cpus(quantity):
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def _mebibytes(quantity):
    number, unit = quantity[:-2], quantity[-2:]
    return float(number) * {"Mi": 1, "Gi": 1024}[unit]
