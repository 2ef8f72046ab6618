"""`python -m madang_featurestore`: run the service."""

from madang_featurestore.settings import FeatureStoreSettings
from madang_featurestore.wiring import wire
from madang_runtime.server import run

if __name__ == "__main__":
    run("featurestore", FeatureStoreSettings(), wire)
