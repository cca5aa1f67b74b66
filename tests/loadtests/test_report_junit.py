"""The JUnit XML of a load test is well-formed and says what a CI server must know: what failed, and why."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import results
from results import HEALTHY, HOSTILE, latencies, model

from tritonkit.recipe import Slo
from tritonkit_load.load.result import Result
from tritonkit_load.reporting import junit

SLO = Slo(p99_ms=50)
USUAL = results.result()


def cases(result: Result) -> dict[tuple[str, str], Element]:
    root = ElementTree.fromstring(junit.render(result).encode())
    assert root.tag == "testsuites"
    (suite,) = root
    elements = {(case.get("classname", ""), case.get("name", "")): case for case in suite.iter("testcase")}
    assert int(suite.get("tests", "")) == len(elements)
    for kind, count in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        assert int(suite.get(count, "")) == int(root.get(count, "")) == len(suite.findall(f"testcase/{kind}"))
    return elements


def outcomes(result: Result) -> dict[tuple[str, str], str]:
    return {
        name: next((child.tag for child in case if child.tag != "system-out"), "passed")
        for name, case in cases(result).items()
    }


def test_a_run_within_its_slo_passes_for_each_bound_model_and_the_run() -> None:
    assert outcomes(USUAL) == {
        ("load test", "the run is valid"): "passed",
        ("efficientnet_lite0", "answers"): "passed",
        ("efficientnet_lite0", "p99 latency at most 50 ms"): "passed",
        ("efficientnet_lite0", "failed requests at most 0.1 %"): "passed",
    }
    suite = ElementTree.fromstring(junit.render(USUAL).encode())[0]
    assert suite.get("timestamp") == USUAL.created
    assert {prop.get("name"): prop.get("value") for prop in suite.iter("property")}["command"] == USUAL.command


def test_a_missed_bound_is_a_failure_with_both_figures() -> None:
    slow = results.result({"m": model(latencies(500, 90.0), errors={"Overloaded": 9}, slo=SLO)})
    elements = cases(slow)
    failure = elements["m", "p99 latency at most 50 ms"].find("failure")
    assert failure is not None
    assert "at most 50 ms wanted" in failure.get("message", "")
    assert outcomes(slow)["m", "failed requests at most 0.1 %"] == "failure"
    assert "9 x Overloaded: refused" in (elements["m", "answers"].findtext("system-out") or "")


def test_in_an_invalid_run_the_run_is_the_error_and_bounds_are_not_judged() -> None:
    generator = replace(HEALTHY, valid=False, why=("99 % left up to 41 ms late",))
    invalid = replace(USUAL, verdict=replace(USUAL.verdict, valid=False, met=False), generator=generator)
    statuses = outcomes(invalid)
    assert statuses["load test", "the run is valid"] == "error"
    assert statuses["efficientnet_lite0", "p99 latency at most 50 ms"] == "skipped"
    error = cases(invalid)["load test", "the run is valid"].find("error")
    assert error is not None
    assert error.get("message") == "99 % left up to 41 ms late"


def test_a_run_that_was_cut_short_is_an_error_whatever_it_found() -> None:
    assert outcomes(replace(USUAL, partial=True))["load test", "the run is valid"] == "error"


def test_a_model_without_answers_fails_and_without_an_slo_any_failure_does() -> None:
    dead = outcomes(results.result({"m": model(latencies(0), errors={"Unreachable": 5}, slo=SLO)}))
    assert dead["m", "answers"] == dead["m", "p99 latency at most 50 ms"] == "failure"
    assert outcomes(results.result({"m": model(latencies(50), errors={"Overloaded": 1})}))["m", "answers"] == "failure"
    assert outcomes(results.result({"m": model(latencies(50))}))["m", "answers"] == "passed"


def test_whatever_a_server_puts_into_its_errors_the_xml_is_well_formed() -> None:
    bad = HOSTILE + "\x00\x1b[31m\ufffe\udcff"
    figures = replace(model(latencies(20), errors={bad: 2}, slo=SLO), messages={bad: bad})
    odd = replace(results.result({bad: figures}), command=bad, created=bad, environment={"cpu": bad})
    text = " ".join(case.findtext("system-out") or "" for case in cases(odd).values())
    assert HOSTILE in text
    assert "\x1b" not in text
