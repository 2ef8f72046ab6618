"""Checks at load time that the feature store serves what a model was trained on."""

from madang.feature.v1 import feature_store_pb2 as pb
from madang_runtime.clients import Remote
from madang_runtime.errors import Code, MadangError
from madang_runtime.models.inputs import check_fingerprint
from madang_runtime.models.manifest import Manifest

GetView = Remote[pb.GetFeatureViewRequest, pb.GetFeatureViewResponse]


def check_store(manifest: Manifest, get_view: GetView) -> None:
    """Refuse a model whose features the store does not serve in the same way.

    Raises:
        MadangError: FEATURE_FINGERPRINT_MISMATCH, or UNAVAILABLE when the store can't be asked.
    """
    views = []
    for name in sorted({f.view for f in manifest.features}):
        try:
            views.append(get_view(pb.GetFeatureViewRequest(name=name)).view)
        except MadangError as error:
            if error.code != Code.NOT_FOUND:
                raise
    check_fingerprint(manifest, views)
