"""Parameters that are shards: DTensors, flat pieces, tensor parallelism."""
