"""A model that follows its alias while the service runs."""

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from madang_runtime.errors import DEGRADABLE, Code, MadangError, reason
from madang_runtime.models.registry import ModelFiles, ModelRegistry
from madang_runtime.server import ServiceHost

log = logging.getLogger(__name__)

_MENDED_BY_OTHERS = (
    reason.ERROR_REASON_MODEL_NOT_FOUND,  # another model that it needs
    reason.ERROR_REASON_FEATURE_FINGERPRINT_MISMATCH,
    reason.ERROR_REASON_FEATURE_VIEW_NOT_FOUND,
)


Model = TypeVar("Model")


class HotModel(Generic[Model]):
    """Loads the version behind an alias, and every later one, without failing a request.

    A version that can't be loaded is reported and skipped while the one before goes on serving.
    The service is ready once there is a first one.

    Args:
        host: gets readiness and metrics.
        registry: where the model is.
        name: the model's name.
        alias: the alias to follow.
        load: builds and warms the model up; may raise MadangError to refuse it.
        required: whether the service waits for it. Else it may be that the alias points at nothing,
            or no more; in metrics it is then "name@alias".
    """

    def __init__(
        self,
        host: ServiceHost,
        registry: ModelRegistry,
        name: str,
        alias: str,
        load: Callable[[ModelFiles], Model],
        *,
        required: bool = True,
    ) -> None:
        self._host = host
        self._registry = registry
        self._name = name
        self._alias = alias
        self._load = load
        self._required = required
        self._label = name if required else f"{name}@{alias}"
        self._model: Model | None = None
        self._version = ""
        self._refusal: tuple[str, MadangError] = ("", _not_ready(name))
        self._stop = threading.Event()

    def start(self) -> None:
        """Load now if possible, then follow the alias from a thread."""
        if self._required:
            self._host.set_ready(f"model {self._name}", False)
        self.refresh()
        thread = threading.Thread(target=self._follow, name=f"model-{self._name}", daemon=True)
        thread.start()
        self._host.closing.callback(self._stop.set)

    def current(self) -> Model:
        """The model that serves.

        Raises:
            MadangError: why there is none yet, such as MODEL_NOT_FOUND, MODEL_CORRUPT or
                FEATURE_FINGERPRINT_MISMATCH.
        """
        model = self._model
        if model is None:
            raise self._refusal[1].again()
        return model

    def refresh(self) -> None:
        """Look at the alias once, and load what it points at if that is new."""
        version = ""
        try:
            version = self._registry.resolve(self._name, self._alias)
            if version == self._version or self._hopeless(version):
                return
            model = self._load(self._registry.load(self._name, version))
        except MadangError as error:
            gone = error.reason == reason.ERROR_REASON_MODEL_NOT_FOUND
            if gone and not version and not self._required:
                self._drop(error)
            else:
                self._refused(version, error)
        except OSError as error:  # the registry, or the disk: it may pass
            why = reason.ERROR_REASON_NOT_READY
            self._refused(version, MadangError(Code.UNAVAILABLE, why, str(error)))
        except Exception as error:
            log.exception("%s %s could not be loaded", self._name, version)
            why = reason.ERROR_REASON_MODEL_CORRUPT
            self._refused(version, MadangError(Code.FAILED_PRECONDITION, why, str(error)))
        else:
            self._swap(model, version)

    def _hopeless(self, version: str) -> bool:
        """Whether a version was refused for what it is, which no waiting mends."""
        refused, error = self._refusal
        waiting_helps = error.code in DEGRADABLE or error.reason in _MENDED_BY_OTHERS
        return bool(version) and version == refused and not waiting_helps

    def _refused(self, version: str, error: MadangError) -> None:
        if (version, error.message) != (self._refusal[0], self._refusal[1].message):
            log.warning("not ready: model %s is not served: %s", self._name, error.message)
            self._host.metrics.model_failures.labels(self._label).inc()
        self._refusal = (version, error)

    def _swap(self, model: Model, version: str) -> None:
        info = self._host.metrics.model_info
        if self._model is not None:  # requests under way keep it until they end
            info.remove(self._label, self._version)
        self._model, self._version = model, version
        info.labels(self._label, version).set(1)
        if self._required:
            self._host.set_ready(f"model {self._name}", True)
        log.info("%s %s serves", self._label, version)

    def _drop(self, why: MadangError) -> None:
        """Serve none, or none any more."""
        self._refusal = ("", why)
        if self._model is not None:
            self._host.metrics.model_info.remove(self._label, self._version)
            self._model, self._version = None, ""
            log.info("%s serves no more", self._label)

    def _follow(self) -> None:
        while not self._stop.wait(self._host.settings.model_poll_seconds):
            self.refresh()


def _not_ready(name: str) -> MadangError:
    return MadangError(
        Code.UNAVAILABLE, reason.ERROR_REASON_NOT_READY, f"model {name!r} is not loaded yet"
    )
