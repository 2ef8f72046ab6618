"""Model versions in a folder or bucket: `<model>/<version>/…` and `<model>/aliases/<alias>`."""

import hashlib
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from madang_runtime.errors import Code, MadangError, reason
from madang_runtime.models.manifest import FeatureRef, FileEntry, Manifest, fingerprint

CHAMPION = "champion"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ModelFiles:
    """A verified model version in memory."""

    manifest: Manifest
    files: dict[str, bytes]


class ModelRegistry:
    """Registers and loads models on any fsspec URL (`file://`, `s3://`, `memory://` …).

    A version exists when its manifest does; the manifest is written last and names the checksum of
    every file, so a writer that dies half-way leaves nothing that can be loaded. Aliases are one
    small file each.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)

    def register(
        self,
        name: str,
        files: Mapping[str, bytes | Path],
        *,
        features: list[FeatureRef] | None = None,
        parameters: dict[str, Any] | None = None,
        metrics: dict[str, float] | None = None,
    ) -> str:
        """Write a new version and return its name. No alias moves.

        A file that is given by its path is copied without being read into memory as a whole.
        """
        now = datetime.now(UTC)
        version = f"{now:%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"
        manifest = Manifest(
            name=name,
            version=version,
            created_at=now,
            files={file: _entry(content) for file, content in files.items()},
            features=features or [],
            feature_fingerprint=fingerprint(features or []),
            parameters=parameters or {},
            metrics=metrics or {},
        )
        self._put(manifest, files)
        return version

    def copy(self, source: "ModelRegistry", name: str, version: str) -> None:
        """Write a version of another registry as it is. No alias moves.

        Raises:
            MadangError: MODEL_NOT_FOUND; MODEL_CORRUPT when a file is missing or differs there.
        """
        manifest = source.manifest(name, version)
        with tempfile.TemporaryDirectory() as folder:
            files = {f: source.fetch(name, version, f, Path(folder)) for f in manifest.files}
            self._put(manifest, files)

    def _put(self, manifest: Manifest, files: Mapping[str, bytes | Path]) -> None:
        folder = self._path(manifest.name, manifest.version)
        self._fs.makedirs(folder, exist_ok=True)
        for file, content in files.items():
            if isinstance(content, Path):
                self._fs.put_file(str(content), f"{folder}/{file}")
            else:
                self._fs.pipe_file(f"{folder}/{file}", content)
        written = manifest.model_dump_json(indent=2).encode()
        self._write_whole(f"{folder}/manifest.json", written)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version. Raises: MadangError MODEL_NOT_FOUND, MODEL_CORRUPT."""
        self.manifest(name, version)
        self._fs.makedirs(self._path(name, "aliases"), exist_ok=True)
        self._write_whole(self._path(name, "aliases", alias), version.encode())

    def remove_alias(self, name: str, alias: str) -> None:
        """Let an alias point at nothing, as it may already."""
        if self.has_alias(name, alias):
            self._fs.rm_file(self._path(name, "aliases", alias))

    def resolve(self, name: str, alias: str = CHAMPION) -> str:
        """The version that an alias points at. Raises: MadangError MODEL_NOT_FOUND."""
        return self._read(self._path(name, "aliases", alias), name, f"alias {alias!r}").decode()

    def has_alias(self, name: str, alias: str = CHAMPION) -> bool:
        """Whether an alias points at anything."""
        return bool(self._fs.exists(self._path(name, "aliases", alias)))

    def names(self) -> list[str]:
        """The models that have a complete version."""
        return sorted({p.split("/")[-3] for p in self._fs.glob(f"{self._root}/*/*/manifest.json")})

    def versions(self, name: str) -> list[str]:
        """The complete versions of a model, oldest first."""
        found = self._fs.glob(f"{self._path(name)}/*/manifest.json")
        return sorted(path.split("/")[-2] for path in found)

    def manifest(self, name: str, version: str) -> Manifest:
        """Read a manifest. Raises: MadangError MODEL_NOT_FOUND, MODEL_CORRUPT."""
        path = self._path(name, version, "manifest.json")
        try:
            return Manifest.model_validate_json(self._read(path, name, f"version {version!r}"))
        except ValidationError as error:
            raise _corrupt(name, version, "manifest.json") from error

    def load(self, name: str, version: str) -> ModelFiles:
        """Read a version and verify every file.

        Raises:
            MadangError: MODEL_NOT_FOUND; MODEL_CORRUPT when a file is missing or differs.
        """
        manifest = self.manifest(name, version)
        files = {}
        for file, entry in manifest.files.items():
            try:
                content = self._fs.cat_file(self._path(name, version, file))
            except FileNotFoundError as error:
                raise _corrupt(name, version, file) from error
            if len(content) != entry.size or _sha256(content) != entry.sha256:
                raise _corrupt(name, version, file)
            files[file] = content
        return ModelFiles(manifest, files)

    def fetch(self, name: str, version: str, file: str, folder: Path) -> Path:
        """A verified file of a version on this machine, for files too big for memory.

        Where the registry is a folder here, that is the file itself; else it is copied into
        `folder`, once.

        Raises:
            MadangError: MODEL_NOT_FOUND; MODEL_CORRUPT when the file is missing or differs.
        """
        entry = self.manifest(name, version).files.get(file)
        path = self._path(name, version, file)
        if entry is None or not self._fs.exists(path):
            raise _corrupt(name, version, file)
        here = isinstance(self._fs, LocalFileSystem)
        local = Path(path) if here else folder / name / version / file
        if not local.exists():
            local.parent.mkdir(parents=True, exist_ok=True)
            part = local.with_name(f"{file}.{secrets.token_hex(4)}.part")
            self._fs.get_file(path, str(part))
            part.rename(local)
        if _entry(local) != entry:
            if not here:
                local.unlink(missing_ok=True)
            raise _corrupt(name, version, file)
        return local

    def _path(self, *parts: str) -> str:
        for part in parts:
            if not _NAME.fullmatch(part):
                raise MadangError(
                    Code.INVALID_ARGUMENT,
                    reason.ERROR_REASON_FIELD_INVALID,
                    f"{part!r} is no name of a model, version, alias or file",
                )
        return "/".join((self._root, *parts))

    def _read(self, path: str, name: str, what: str) -> bytes:
        try:
            content: bytes = self._fs.cat_file(path)
        except FileNotFoundError as error:
            raise MadangError(
                Code.FAILED_PRECONDITION,
                reason.ERROR_REASON_MODEL_NOT_FOUND,
                f"model {name!r} has no {what}",
                model=name,
            ) from error
        return content

    def _write_whole(self, path: str, content: bytes) -> None:
        """Write so that a reader sees the old content or the new, never a part."""
        part = f"{path}.{secrets.token_hex(4)}.part"
        self._fs.pipe_file(part, content)
        self._fs.mv(part, path)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _entry(content: bytes | Path) -> FileEntry:
    if isinstance(content, bytes):
        return FileEntry(sha256=_sha256(content), size=len(content))
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(sha256=digest, size=content.stat().st_size)


def _corrupt(name: str, version: str, file: str) -> MadangError:
    return MadangError(
        Code.FAILED_PRECONDITION,
        reason.ERROR_REASON_MODEL_CORRUPT,
        f"model {name!r} version {version!r}: {file} is missing or differs from its manifest",
        model=name,
        file=file,
    )
