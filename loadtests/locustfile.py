"""Triton users for Locust: each sends real samples of recipes, in a closed loop or on a schedule.

    locust -f loadtests/locustfile.py --recipe build/recipes/efficientnet_lite0.yaml \
           --host grpc://127.0.0.1:8001 --headless --run-time 30s --arrivals poisson:100

Without ``--headless`` the same is set on Locust's web page. ``--processes N``, ``--master`` and ``--worker`` spread it.
"""

from __future__ import annotations

from load.coordination import add_arguments, begin
from load.users import TritonGrpcUser, TritonHttpUser, TritonStreamUser
from locust import events

__all__ = ["TritonGrpcUser", "TritonHttpUser", "TritonStreamUser"]

events.init_command_line_parser.add_listener(add_arguments)
events.init.add_listener(begin)
