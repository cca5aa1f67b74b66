"""Triton users for Locust: each sends real samples of recipes, in a closed loop or on a schedule.

``loadtests/locustfile.py`` of a checkout is this for a person's own ``locust -f``.
"""

from __future__ import annotations

from locust import events

from tritonkit_load.load.coordination import add_arguments, begin
from tritonkit_load.load.users import TritonGrpcUser, TritonHttpUser, TritonStreamUser

__all__ = ["TritonGrpcUser", "TritonHttpUser", "TritonStreamUser"]

events.init_command_line_parser.add_listener(add_arguments)
events.init.add_listener(begin)
