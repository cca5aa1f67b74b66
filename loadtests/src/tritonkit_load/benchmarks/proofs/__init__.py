"""Proofs of the chart that need no cluster: the drain on real processes, the autoscaler simulated."""
