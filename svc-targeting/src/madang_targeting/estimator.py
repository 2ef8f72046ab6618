"""What there is to choose from, and what segments would bring, at once: by the preference groups'
models, on a sample."""

from collections.abc import Callable

import numpy as np

from madang.common.v1.serving_info_pb2 import ModelVersion
from madang.targeting.v1 import targeting_pb2 as pb
from madang_runtime.errors import DEGRADABLE, MadangError
from madang_runtime.stages import Stages
from madang_targeting.calibration import rate_interval
from madang_targeting.curve import Cut
from madang_targeting.forecast import CURVE_POINTS, curve_point
from madang_targeting.model import OUTCOMES, TargetingModel
from madang_targeting.outreach import Outreach

_ASKED = 1000


class Estimator:
    """The domain of GetAudienceInfo and EstimateAudience.

    Args:
        model: gives the model that serves.
        outreach: knows whose caps allow a message.
        threads: to predict with.
    """

    def __init__(
        self, model: Callable[[], TargetingModel], outreach: Outreach, threads: int
    ) -> None:
        self._model, self._outreach, self._threads = model, outreach, threads

    def info(self, stages: Stages) -> pb.GetAudienceInfoResponse:
        """Answer GetAudienceInfo. Raises: MadangError, as the proto says."""
        model = self._model()
        return pb.GetAudienceInfoResponse(
            audience_size=model.audience.size,
            groups=model.layout.groups,
            channels=model.layout.channels,
            campaigns=[
                pb.Campaign(campaign_id=name, group=before.group, channel=before.channel)
                for name, before in model.campaigns.items()
            ],
            serving_info=stages.serving_info([_version(model)]),
        )

    def estimate(
        self, request: pb.EstimateAudienceRequest, stages: Stages
    ) -> pb.EstimateAudienceResponse:
        """Answer EstimateAudience. Raises: MadangError, as the proto says."""
        model = self._model()
        groups = list(dict.fromkeys(request.groups))
        model.check(request.channel, groups)
        in_order = sorted(OUTCOMES, key=lambda o: o != request.goal)
        with stages.stage("simulate"):
            inputs, columns = model.sample.inputs, model.layout.columns()
            outcomes = [OUTCOMES[o] for o in in_order]
            expected = model.simulate(
                inputs, columns, request.channel, groups, outcomes, self._threads
            )
        audience, spread = model.audience, [model.spread[o] for o in outcomes]
        ranked = expected[:, np.argsort(-expected[0], kind="stable")].cumsum(1)
        n = ranked.shape[1]
        taken = np.unique(np.ceil(np.linspace(0, n, CURVE_POINTS + 1)[1:])).astype(int)
        scale = audience.size / n
        answer = pb.EstimateAudienceResponse(
            audience_size=audience.size,
            curve=[
                curve_point(Cut(0, 0, k * scale, ranked[:, k - 1] * scale), request.goal, spread)
                for k in taken.tolist()
            ],
        )
        try:
            with stages.stage("caps"):
                users = model.sample.ids[:: max(n // _ASKED, 1)]
                allowed = int(self._outreach.allowed(request.channel, users).sum())
            within = rate_interval(allowed, len(users))
            answer.allowed.expected = allowed / len(users)
            answer.allowed.low, answer.allowed.high = within
        except MadangError as error:
            if error.code not in DEGRADABLE:
                raise
            stages.degrade("store", error, "whose caps allow a message is not known")
        answer.serving_info.CopyFrom(stages.serving_info([_version(model)]))
        return answer


def _version(model: TargetingModel) -> ModelVersion:
    return ModelVersion(name=model.manifest.name, version=model.manifest.version)
