"""What measures tritonkit itself, not a model of yours: benchmarks, proofs, and the servers of `make compare`."""
