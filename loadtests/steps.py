"""A load shape for Locust: 1, 2, 4 and 8 users, each number for the same time, then the end.

Give it beside the users: ``locust -f loadtests/locustfile.py,loadtests/steps.py --step-s 5 …``
"""

from __future__ import annotations

from typing import Any

from locust import LoadTestShape, events

USERS = (1, 2, 4, 8)


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any) -> None:
    """How long a step takes."""
    parser.add_argument("--step-s", type=float, default=5.0, help="seconds a step")


class Steps(LoadTestShape):  # type: ignore[misc]
    """Doubles the users at every step."""

    def tick(self) -> tuple[int, float] | None:
        """Users and spawn rate for now; None ends the test."""
        step = int(self.get_run_time() / self.runner.environment.parsed_options.step_s)
        return (USERS[step], USERS[step]) if step < len(USERS) else None
