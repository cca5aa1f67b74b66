"""Triton users for Locust; with tritonkit-load installed, Locust takes this file alone.

    locust -f loadtests/locustfile.py --recipe build/recipes/efficientnet_lite0.yaml \
           --host grpc://127.0.0.1:8001 --headless --run-time 30s --arrivals poisson:100

Without ``--headless`` the same is set on Locust's web page. ``--processes N``, ``--master`` and ``--worker`` spread it.
"""

from tritonkit_load.locustfile import TritonGrpcUser, TritonHttpUser, TritonStreamUser

__all__ = ["TritonGrpcUser", "TritonHttpUser", "TritonStreamUser"]
