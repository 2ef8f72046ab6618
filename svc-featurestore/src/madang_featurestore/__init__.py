"""svc-featurestore: registers, serves and ingests features."""
