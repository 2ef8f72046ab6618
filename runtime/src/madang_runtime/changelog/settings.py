"""Settings of services that keep logs or tables in a store of their own."""

from pydantic import Field, SecretStr

from madang_runtime.changelog.compacted import CompactedLog
from madang_runtime.changelog.compacted_redis import RedisCompactedLog
from madang_runtime.settings import ServiceSettings
from madang_runtime.urls import with_password


class LogSettings(ServiceSettings):
    """Where a service's logs are."""

    log_url: str = Field(
        "redis://127.0.0.1:6379",
        description="redis:// or rediss:// of the logs; the server keeps an append-only file.",
    )
    log_password: SecretStr = Field(
        SecretStr(""), description="Password of the logs' store, when it is not in the URL."
    )
    log_timeout_seconds: float = Field(1.0, gt=0, description="Longest wait for the logs.")
    log_synced: bool = Field(
        False,
        description="Answer only when what is written is synced to disk: for a server that syncs "
        "its append-only file every second and not always.",
    )

    def log_store(self) -> str:
        """The logs' store with its password."""
        return with_password(self.log_url, self.log_password)

    def open_table(self, name: str) -> CompactedLog:
        """A compacted log of these settings."""
        return RedisCompactedLog(
            self.log_store(), name, self.log_timeout_seconds, synced=self.log_synced
        )
