"""An RPC of another service, as a domain sees it."""

from typing import Protocol, TypeVar

Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)


class Dependency(Protocol[Request_contra, Response_co]):
    """Calls another service.

    Attributes:
        name: of the call, its span and its stage.
    """

    name: str

    def __call__(self, request: Request_contra) -> Response_co:
        """Call and wait.

        Raises:
            MadangError: the callee's error, or UNAVAILABLE, DEADLINE_EXCEEDED.
        """
