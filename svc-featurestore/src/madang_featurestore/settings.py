"""Settings of svc-featurestore."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from madang_runtime.settings import ServiceSettings


class FeatureStoreSettings(ServiceSettings):
    """Read from `MADANG_FEATURESTORE_*`."""

    model_config = SettingsConfigDict(env_prefix="MADANG_FEATURESTORE_")

    threads: int = Field(
        4,
        ge=1,
        le=256,
        description="Threads that run handlers; more only switch, look-ups are short.",
    )
    store_url: str = Field(
        "memory://",
        description="redis://[user:password@]host:port/db, rediss:// for TLS, or memory://.",
    )
    store_password: SecretStr = Field(
        SecretStr(""), description="Password of the store, when it is not in the URL."
    )
    store_timeout_seconds: float = Field(
        0.25, gt=0, description="Longest wait for the store, connecting included."
    )
