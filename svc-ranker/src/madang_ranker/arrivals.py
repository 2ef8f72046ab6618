"""When what is shown would arrive."""

from collections.abc import Sequence

import numpy as np

from madang.common.v1.place_pb2 import Place
from madang.eta.v1 import eta_pb2
from madang.ranker.v1 import ranker_pb2 as pb
from madang_ranker.dependencies import Eta
from madang_runtime.errors import DEGRADABLE, Code, MadangError
from madang_runtime.stages import Stages

# A page is whole without arrivals, so svc-eta without a model costs it nothing else.
_DEGRADABLE = DEGRADABLE | {Code.FAILED_PRECONDITION}


def add_arrivals(
    eta: Eta, items: Sequence[pb.RecommendedItem], place: Place, time_ms: int, stages: Stages
) -> None:
    """Put the window of arrival into each item that svc-eta knows, with one call for all.

    Raises:
        MadangError: svc-eta's, unless it may degrade the answer.
    """
    request = eta_pb2.PredictBatchRequest(shop_ids=[item.item_id for item in items], place=place)
    request.order_time.FromMilliseconds(time_ms)
    try:
        answer = stages.call(eta, request)
    except MadangError as error:
        if error.code not in _DEGRADABLE:
            raise
        stages.degrade("eta", error, "no arrivals")
        return
    stages.adopt(answer.serving_info)
    known = np.frombuffer(answer.sources, np.uint8) != eta_pb2.ETA_SOURCE_NONE
    columns = (
        np.frombuffer(answer.window_starts, "<u2"),
        np.frombuffer(answer.window_ends, "<u2"),
        np.frombuffer(answer.window_probabilities, "<f4"),
    )
    rows = zip(items, known.tolist(), *(column.tolist() for column in columns), strict=True)
    for item, is_known, start, end, probability in rows:
        if is_known:
            item.arrival.start_minute = start
            item.arrival.end_minute = end
            item.arrival.probability = probability
