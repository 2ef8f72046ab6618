"""Proto ↔ domain of svc-eta."""

from collections.abc import Callable

import grpc

from madang.eta.v1 import eta_pb2 as pb
from madang.eta.v1 import eta_pb2_grpc
from madang_eta.buffers import BufferDesk
from madang_eta.predictor import ArrivalPredictor
from madang_runtime.stages import Stages


class EtaServicer(eta_pb2_grpc.EtaServiceServicer):
    """Implements EtaService."""

    def __init__(
        self, predictor: ArrivalPredictor, buffers: BufferDesk, stages: Callable[[], Stages]
    ) -> None:
        self._predictor = predictor
        self._buffers = buffers
        self._stages = stages

    def Predict(
        self, request: pb.PredictRequest, context: grpc.ServicerContext
    ) -> pb.PredictResponse:
        """See the proto."""
        return self._predictor.predict(request, self._stages())

    def PredictBatch(
        self, request: pb.PredictBatchRequest, context: grpc.ServicerContext
    ) -> pb.PredictBatchResponse:
        """See the proto."""
        return self._predictor.batch(request, self._stages())

    def GetTimeBuffer(
        self, request: pb.GetTimeBufferRequest, context: grpc.ServicerContext
    ) -> pb.GetTimeBufferResponse:
        """See the proto."""
        return self._buffers.get(request)

    def SetTimeBuffer(
        self, request: pb.SetTimeBufferRequest, context: grpc.ServicerContext
    ) -> pb.SetTimeBufferResponse:
        """See the proto."""
        with self._stages().stage("log"):
            return self._buffers.set(request)
