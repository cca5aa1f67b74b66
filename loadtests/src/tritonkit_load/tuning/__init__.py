"""Finds the highest rate that meets an SLO, and the configuration of Triton for which that rate is highest."""
