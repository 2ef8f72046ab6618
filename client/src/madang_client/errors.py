"""What a call that failed says of it."""

from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

_DETAILS = "grpc-status-details-bin"


class MadangError(grpc.RpcError):
    """A call that failed, with the reason that the mesh gave.

    Attributes:
        status: the canonical status; `code()`, `details()` and `trailing_metadata()` are grpcio's.
        reason: a name of `madang.common.v1.ErrorReason` without its prefix, such as
            "FIELD_INVALID"; "" where the call did not reach a service.
        message: what was wrong, and what would be right.
        about: what the error is about, such as {"field": "page_size"}.
        retry_after: seconds after which a retry makes sense, None where the mesh names none.
    """

    def __init__(self, error: grpc.RpcError) -> None:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        self._metadata: Any = tuple(error.trailing_metadata() or ())
        for key, value in self._metadata:
            if key == _DETAILS:
                _fill(status_pb2.Status.FromString(value), info, retry)
        self.status = error.code()
        self.reason: str = info.reason
        self.message = error.details() or ""
        self.about = dict(info.metadata)
        self.retry_after: float | None = None
        if retry.HasField("retry_delay"):
            self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        super().__init__(f"{f'{self.status.name} {self.reason}'.strip()}: {self.message}")

    def code(self) -> grpc.StatusCode:
        """The canonical status."""
        return self.status

    def details(self) -> str:
        """The message."""
        return self.message

    def trailing_metadata(self) -> Any:
        """What came with the status."""
        return self._metadata


def _fill(status: status_pb2.Status, *wanted: Message) -> None:
    for detail in status.details:
        for message in wanted:
            detail.Unpack(message)  # which does nothing where the type is another
