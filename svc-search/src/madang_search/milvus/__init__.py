"""The index `milvus`: documents in a collection of Milvus, fed from their log by one process."""
