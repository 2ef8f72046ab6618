"""The model registry, hot models and fingerprints."""

import contextlib
import gc
import json
import weakref

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from madang.feature.v1 import feature_store_pb2 as pb
from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.models.hot import HotModel
from madang_runtime.models.inputs import check_fingerprint, feature_refs
from madang_runtime.models.registry import ModelRegistry
from madang_runtime.server import ServiceHost
from madang_runtime.settings import ServiceSettings

VIEW = pb.FeatureView(
    name="v", entity="e", features=[{"name": "a", "dtype": 1}, {"name": "b", "dtype": 2, "dim": 3}]
)


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket of an S3-compatible store."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "it")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "it")
        fsspec.filesystem("s3").mkdir("models")
        yield "s3://models"
    server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def registry(request, tmp_path):
    if request.param == "s3":
        return ModelRegistry(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")
    return ModelRegistry(f"{request.param}://{tmp_path}/models")


def refused(call) -> int:
    with pytest.raises(MadangError) as caught:
        call()
    return caught.value.reason


def test_register_alias_load(registry):
    version = registry.register("m", {"a.bin": b"abc"}, parameters={"n": 1}, metrics={"auc": 0.7})
    registry.set_alias("m", "champion", version)
    loaded = registry.load("m", registry.resolve("m"))
    assert loaded.files == {"a.bin": b"abc"}
    assert loaded.manifest.parameters == {"n": 1}
    later = registry.register("m", {"a.bin": b"abd"})
    assert registry.versions("m") == [version, later]
    assert registry.names() == ["m"]


def test_a_big_file_is_put_and_fetched_by_its_path(registry, tmp_path):
    given = tmp_path / "given.bin"
    given.write_bytes(b"abc" * 1000)
    version = registry.register("m", {"big.bin": given, "a.bin": b"abc"})
    found = registry.fetch("m", version, "big.bin", tmp_path / "copies")
    assert found.read_bytes() == given.read_bytes()
    again = registry.fetch("m", version, "big.bin", tmp_path / "copies")
    assert (again, again.stat().st_mtime_ns) == (found, found.stat().st_mtime_ns)
    assert registry.load("m", version).files["big.bin"] == given.read_bytes()
    found.write_bytes(b"abd" * 1000)
    corrupt = reason.ERROR_REASON_MODEL_CORRUPT
    for file in ("big.bin", "none.bin"):
        assert (
            refused(lambda f=file: registry.fetch("m", version, f, tmp_path / "copies")) == corrupt
        )
    assert not list(tmp_path.rglob("*.part"))


def test_a_version_of_another_registry(registry, tmp_path):
    other = ModelRegistry(f"file://{tmp_path}/other")
    version = other.register("m", {"a.bin": b"abc"}, metrics={"auc": 0.7})
    assert not registry.has_alias("m")
    registry.copy(other, "m", version)
    assert registry.load("m", version) == other.load("m", version)
    assert refused(lambda: registry.resolve("m")) == reason.ERROR_REASON_MODEL_NOT_FOUND


def test_unknown_names_aliases_and_versions(registry):
    missing = reason.ERROR_REASON_MODEL_NOT_FOUND
    assert refused(lambda: registry.resolve("m")) == missing
    assert refused(lambda: registry.load("m", "1")) == missing
    assert refused(lambda: registry.set_alias("m", "champion", "1")) == missing
    assert refused(lambda: registry.resolve("../etc", "x")) == reason.ERROR_REASON_FIELD_INVALID


@pytest.mark.parametrize("harm", ["changed", "cut", "gone"])
def test_a_file_that_differs_from_its_manifest_is_refused(tmp_path, harm):
    registry = ModelRegistry(f"file://{tmp_path}")
    version = registry.register("m", {"a.bin": b"abc", "b.bin": b"x"})
    path = tmp_path / "m" / version / "a.bin"
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b"abX" if harm == "changed" else b"a")
    assert refused(lambda: registry.load("m", version)) == reason.ERROR_REASON_MODEL_CORRUPT


def test_a_killed_writer_leaves_no_version(tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    version = registry.register("m", {"a.bin": b"abc"})
    (tmp_path / "m" / version / "manifest.json").unlink()  # all files but the last
    assert registry.versions("m") == []
    assert refused(lambda: registry.load("m", version)) == reason.ERROR_REASON_MODEL_NOT_FOUND


def test_a_broken_manifest_is_corrupt(tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    version = registry.register("m", {"a.bin": b"abc"})
    (tmp_path / "m" / version / "manifest.json").write_text(json.dumps({"name": "m"}))
    assert refused(lambda: registry.load("m", version)) == reason.ERROR_REASON_MODEL_CORRUPT


def test_the_fingerprint_allows_appended_features_and_no_others(tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    manifest = registry.manifest("m", registry.register("m", {}, features=feature_refs(VIEW)))
    more = pb.FeatureView()
    more.CopyFrom(VIEW)
    more.features.add(name="c", dtype=1)
    check_fingerprint(manifest, [more])
    other = pb.FeatureView()
    other.CopyFrom(VIEW)
    other.features[1].dim = 4
    mismatch = reason.ERROR_REASON_FEATURE_FINGERPRINT_MISMATCH
    assert refused(lambda: check_fingerprint(manifest, [other])) == mismatch
    assert refused(lambda: check_fingerprint(manifest, [])) == mismatch


class Loaded:
    """What a version became."""

    def __init__(self, files) -> None:
        self.content = files.files["a.bin"]
        if self.content == b"refuse":
            raise MadangError(
                Code.FAILED_PRECONDITION, reason.ERROR_REASON_FEATURE_FINGERPRINT_MISMATCH, "other"
            )
        if self.content == b"crash":
            raise RuntimeError("no model")


def test_a_hot_model_follows_its_alias_and_survives_bad_versions(tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    host = ServiceHost("t", ServiceSettings(default_deadline_seconds=0.01, model_poll_seconds=60))
    model = HotModel(host, registry, "m", "champion", Loaded)
    model.start()
    assert refused(model.current) == reason.ERROR_REASON_MODEL_NOT_FOUND

    def promote(content: bytes) -> None:
        registry.set_alias("m", "champion", registry.register("m", {"a.bin": content}))
        model.refresh()

    promote(b"refuse")
    assert refused(model.current) == reason.ERROR_REASON_FEATURE_FINGERPRINT_MISMATCH
    promote(b"one")
    first = model.current()
    assert first.content == b"one"
    for bad in (b"refuse", b"crash"):
        promote(bad)
        assert model.current() is first
    promote(b"two")
    assert model.current().content == b"two"
    host.closing.close()


def test_a_refusal_keeps_nothing_of_those_who_heard_it(tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    host = ServiceHost("t", ServiceSettings(default_deadline_seconds=0.01, model_poll_seconds=60))
    registry.set_alias("m", "champion", registry.register("m", {"a.bin": b"crash"}))
    model = HotModel(host, registry, "m", "champion", Loaded, required=False)
    model.start()

    class Request:
        pass

    def asks():
        request = Request()
        with contextlib.suppress(MadangError):
            model.current()
        return weakref.ref(request)

    asked = [asks() for _ in range(3)]
    gc.collect()
    assert [request() for request in asked] == [None] * 3
    assert refused(model.current) == reason.ERROR_REASON_MODEL_CORRUPT
    host.closing.close()


def test_a_model_that_need_not_be_comes_and_goes(tmp_path):
    registry = ModelRegistry(f"file://{tmp_path}")
    host = ServiceHost("t", ServiceSettings(default_deadline_seconds=0.01, model_poll_seconds=60))
    model = HotModel(host, registry, "m", "shadow", Loaded, required=False)
    model.start()
    assert host.ready
    assert refused(model.current) == reason.ERROR_REASON_MODEL_NOT_FOUND
    assert not host.metrics.model_failures.collect()[0].samples, "there need not be one"
    registry.set_alias("m", "shadow", registry.register("m", {"a.bin": b"one"}))
    model.refresh()
    assert model.current().content == b"one"
    assert served(host) == ["m@shadow"]
    registry.remove_alias("m", "shadow")
    registry.remove_alias("m", "shadow")
    model.refresh()
    assert refused(model.current) == reason.ERROR_REASON_MODEL_NOT_FOUND
    assert served(host) == []
    host.closing.close()


def served(host):
    return [s.labels["model"] for s in host.metrics.model_info.collect()[0].samples]
