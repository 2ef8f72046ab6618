"""The views in force, cached by epoch and shared through the store."""

from collections.abc import Sequence
from dataclasses import dataclass

from madang.feature.v1 import feature_store_pb2
from madang_featurestore.definitions import (
    check_compatible,
    fingerprint,
    is_windowed,
    validate,
)
from madang_featurestore.layout import RowLayout
from madang_featurestore.stores.base import Keys, RowStore
from madang_featurestore.windows import WindowLayout
from madang_runtime.errors import Code, MadangError, reason

View = feature_store_pb2.FeatureView


class CompiledView:
    """A view with the layouts of its versions."""

    def __init__(self, versions: list[View]) -> None:
        self.definition = versions[-1]
        self.name = self.definition.name
        self.layouts = {v.version: RowLayout(v) for v in versions}
        self.layout = self.layouts[self.definition.version]
        self.ttl_ms = (
            self.definition.ttl.ToMilliseconds() if self.definition.HasField("ttl") else None
        )
        self.windows = WindowLayout(self.definition) if is_windowed(self.definition) else None
        # Counters of another set of windows lie elsewhere and start afresh.
        self._prefix = (
            f"w:{self.name}:{self.definition.version}:" if self.windows else f"f:{self.name}:"
        )

    def keys(self, entity_ids: Sequence[str]) -> Keys:
        """The store's keys of entities."""
        return Keys(self._prefix, entity_ids[:])

    def key(self, entity_id: str) -> str:
        """The store's key of an entity."""
        return self._prefix + entity_id


@dataclass(frozen=True)
class Snapshot:
    """The views of one epoch."""

    epoch: int
    views: dict[str, CompiledView]

    def find(self, name: str) -> CompiledView:
        """A view by name. Raises: MadangError FEATURE_VIEW_NOT_FOUND."""
        if name not in self.views:
            raise MadangError(
                Code.NOT_FOUND,
                reason.ERROR_REASON_FEATURE_VIEW_NOT_FOUND,
                f"no feature view is named {name!r}",
                view=name,
            )
        return self.views[name]

    def all(self) -> list[CompiledView]:
        """The views by name."""
        return [view for _, view in sorted(self.views.items())]


class ViewCatalog:
    """Applies, finds and lists views."""

    def __init__(self, store: RowStore) -> None:
        self._store = store
        self._snapshot = Snapshot(-1, {})

    def cached(self) -> Snapshot:
        """The views as they were when last read."""
        return self._snapshot

    def reload(self) -> Snapshot:
        """Read all definitions from the store, unless they are the cached ones."""
        epoch, stored = self._store.views()
        if epoch != self._snapshot.epoch:
            views = {name: CompiledView(_versions(payload)) for name, payload in stored.items()}
            self._snapshot = Snapshot(epoch, views)
        return self._snapshot

    def apply(self, view: View) -> tuple[View, bool]:
        """Create a view or append features to it.

        Returns:
            the view in force, and whether this changed it.

        Raises:
            MadangError: FEATURE_VIEW_INVALID, FEATURE_VIEW_INCOMPATIBLE.
        """
        validate(view)
        while True:
            stored = self._store.views()[1].get(view.name)
            versions = _versions(stored) if stored else []
            wanted = View()
            wanted.CopyFrom(view)
            wanted.fingerprint = fingerprint(view)
            if versions:
                check_compatible(versions[-1], view)
                same = versions[-1].fingerprint == wanted.fingerprint
                wanted.version = versions[-1].version + (not same)
                if wanted == versions[-1]:
                    return wanted, False
                versions = versions[:-1] if same else versions  # a new text or ttl only
            else:
                wanted.version = 1
            payload = feature_store_pb2.ListFeatureViewsResponse(views=[*versions, wanted])
            if self._store.put_view(
                view.name, payload.SerializeToString(deterministic=True), stored
            ):
                self.reload()
                return wanted, True


def _versions(payload: bytes) -> list[View]:
    return list(feature_store_pb2.ListFeatureViewsResponse.FromString(payload).views)
