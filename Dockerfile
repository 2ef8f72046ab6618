# The images of Madang, a target each: docker build --target madang-ranker -t madang-ranker .
# Plain steps; versions are those of constraints.txt. Serving images hold no torch.

FROM python:3.11.14-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin madang
WORKDIR /madang
COPY constraints.txt LICENSE ./
RUN pip install -c constraints.txt hatchling
COPY protos protos
COPY runtime runtime
RUN pip install -c constraints.txt --no-build-isolation ./protos "./runtime[s3]"

# Writes what the official Envoy image reads: the init container of the gateway.
FROM base AS madang-gateway
COPY gateway gateway
RUN pip install -c constraints.txt --no-build-isolation ./gateway
USER 10001
ENTRYPOINT ["python", "-m", "madang_gateway"]

FROM base AS madang-featurestore
COPY svc-featurestore svc-featurestore
RUN pip install -c constraints.txt --no-build-isolation ./svc-featurestore
USER 10001
ENTRYPOINT ["python", "-m", "madang_featurestore"]

FROM base AS madang-candidate
COPY svc-candidate svc-candidate
RUN pip install -c constraints.txt --no-build-isolation ./svc-candidate
USER 10001
ENTRYPOINT ["python", "-m", "madang_candidate"]

# The refresher of lists is this image too: python -m madang_eta.refresher.
FROM base AS madang-eta
COPY svc-eta svc-eta
RUN pip install -c constraints.txt --no-build-isolation ./svc-eta
USER 10001
ENTRYPOINT ["python", "-m", "madang_eta"]

# The feedback consumer is this image too: python -m madang_ranker.consumer.
FROM base AS madang-ranker
COPY svc-ranker svc-ranker
RUN pip install -c constraints.txt --no-build-isolation ./svc-ranker
USER 10001
ENTRYPOINT ["python", "-m", "madang_ranker"]

# The dictionary of the analyser of Korean is built from its source distribution, by setuptools. What
# feeds Milvus is this image too: python -m madang_search.milvus.feeder.
FROM base AS madang-search
COPY svc-search svc-search
RUN pip install -c constraints.txt setuptools && \
    pip install -c constraints.txt --no-build-isolation "./svc-search[milvus]"
USER 10001
ENTRYPOINT ["python", "-m", "madang_search"]

# LightGBM needs libgomp, which the base image lacks.
FROM base AS madang-targeting
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY svc-targeting svc-targeting
RUN pip install -c constraints.txt --no-build-isolation ./svc-targeting
USER 10001
ENTRYPOINT ["python", "-m", "madang_targeting"]

# Torch, the pipelines and the command `madang`; a small bundle of models lies in /madang/bundle.
# PIP_EXTRA_INDEX_URL: an index with torch's build for CPUs; without one pip takes that for GPUs.
FROM base AS madang-trainer
ARG PIP_EXTRA_INDEX_URL
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY svc-featurestore svc-featurestore
COPY svc-candidate svc-candidate
COPY svc-eta svc-eta
COPY svc-ranker svc-ranker
COPY svc-search svc-search
COPY svc-targeting svc-targeting
COPY gateway gateway
COPY pipelines pipelines
COPY cli cli
RUN pip install -c constraints.txt setuptools && \
    pip install -c constraints.txt --no-build-isolation ./svc-featurestore "./svc-candidate[train]" \
    "./svc-eta[train]" "./svc-ranker[train]" "./svc-search[train]" ./svc-targeting ./gateway \
    ./pipelines ./cli
RUN madang train --home /madang/bundle && chmod -R a+rX /madang/bundle
USER 10001
ENTRYPOINT ["madang"]
