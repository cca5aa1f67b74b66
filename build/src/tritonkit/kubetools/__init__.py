"""The Kubernetes tools that the chart is proved and deployed with: finds ``helm`` and ``kubectl``, or fetches them.

What is done with them is written elsewhere: :mod:`tritonkit.deploying` deploys, ``tests/helm`` proves.
"""
