"""`make deploy` and `make rollback`: looks, says what is missing, publishes, upgrades, tests.

The chart is in ``helm/tritonkit``, the way of models into a store in :mod:`tritonkit.publishing`.
"""
