"""`tritonkit deploy`: looks, says what is missing, publishes, upgrades, tests, and rolls back.

The chart is in ``helm/tritonkit``, the way of models into a store in :mod:`tritonkit.publishing`.
"""
