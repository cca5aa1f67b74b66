"""A load shape for Locust: each number of users for the same time, then the end.

Give it beside the users: ``locust -f loadtests/locustfile.py,loadtests/steps.py --steps 1,2,4,8 --step-s 5 …``
"""

from __future__ import annotations

from typing import Any

from locust import LoadTestShape, events


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any) -> None:
    """Which steps, and how long each takes."""
    parser.add_argument("--steps", default="8", help="numbers of users, for example 1,2,4,8")
    parser.add_argument("--step-s", type=float, default=20.0, help="seconds a step")


class Steps(LoadTestShape):  # type: ignore[misc]
    """Goes from one number of users to the next at once."""

    def tick(self) -> tuple[int, float] | None:
        """Users and spawn rate for now; None ends the test."""
        options = self.runner.environment.parsed_options
        users = [int(text) for text in options.steps.split(",")]
        step = int(self.get_run_time() / options.step_s)
        return (users[step], max(users)) if step < len(users) else None
