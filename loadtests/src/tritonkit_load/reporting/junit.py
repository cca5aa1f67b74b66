"""A load test as JUnit XML, which CI servers show: the run's validity, each model, and each bound of its SLO.

The dialect is what Jenkins and GitLab read: ``testsuites/testsuite/testcase`` with ``failure``, ``error``, ``skipped``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from tritonkit_load.load.result import Check, ModelResult, Result
from tritonkit_load.reporting import verdict_text
from tritonkit_load.reporting.page import counted, short

_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def render(result: Result) -> str:
    """The XML, with its declaration."""
    suite = new_suite(result.created, result.load.duration_s, {"command": result.command, **result.environment})
    _validity(suite, result)
    for name, model in result.models.items():
        _answered(suite, name, model, result)
        for check in result.verdict.checks:
            if check.model == name:
                bound(suite, check, valid=result.verdict.valid)
    return document(suite)


def new_suite(created: str, duration_s: float, facts: Mapping[str, object]) -> Element:
    """An empty suite with its properties."""
    suite = Element("testsuite", name="load test", timestamp=clean(created), time=f"{duration_s:.3f}")
    properties = SubElement(suite, "properties")
    for name, value in facts.items():
        SubElement(properties, "property", name=clean(name), value=clean(str(value)))
    return suite


def document(suite: Element) -> str:
    """The whole XML of a suite that is complete, with its declaration and its counts."""
    counts = {"tests": len(suite.findall("testcase"))}
    counts |= {f"{kind}s": len(suite.findall(f"testcase/{kind}")) for kind in ("failure", "error")}
    counts["skipped"] = len(suite.findall("testcase/skipped"))
    root = Element("testsuites", name="load test")
    for element in (root, suite):
        element.attrib |= {name: str(count) for name, count in counts.items()}
    root.append(suite)
    ElementTree.indent(root)
    return f"<?xml version='1.0' encoding='UTF-8'?>\n{ElementTree.tostring(root, encoding='unicode')}\n"


def _validity(suite: Element, result: Result) -> None:
    """The generator kept up, and the run was not cut short: an error, as it is none of the server's doing."""
    case = SubElement(suite, "testcase", classname="load test", name="the run is valid")
    why = [*result.generator.why] if not result.verdict.valid else []
    if result.partial:
        why.append(f"the run was cut short after {result.load.duration_s:.3g} s")
    if why or not result.verdict.valid:
        message = "; ".join(why) or "the generator did not keep up"
        SubElement(case, "error", type="invalid run", message=clean(message)).text = clean(message)


def _answered(suite: Element, name: str, model: ModelResult, result: Result) -> None:
    """The model answered; without an SLO, to every request."""
    case = SubElement(suite, "testcase", classname=clean(name), name="answers")
    errors = "\n".join(f"{count:,} x {kind}: {model.messages.get(kind, '')}" for kind, count in model.errors.items())
    if model.latency is None or (model.failed and result.verdict.met is None):
        message = f"{model.failed:,} of {counted(model.requests, 'request')} failed"
        SubElement(case, "failure", type="errors", message=message).text = clean(errors or message)
    latency = model.latency
    figures = f"p50 {short(latency.p50)} ms, p99 {short(latency.p99)} ms" if latency else "no answer"
    SubElement(case, "system-out").text = clean(
        f"{counted(model.requests, 'request')}, {model.failed:,} failed, {short(model.offered)} due and "
        f"{short(model.throughput)} answered per second, {figures}\n{errors}".strip()
    )


def bound(suite: Element, check: Check, *, valid: bool) -> None:
    """One bound of the SLO; skipped where the run may not say."""
    value, limit = verdict_text.value_and_bound(check)
    name = f"{verdict_text.BOUNDS.get(check.name, check.name)} {limit}"
    case = SubElement(suite, "testcase", classname=clean(check.model), name=clean(name))
    message = clean(verdict_text.describe_check(check, alone=True))
    if not valid:
        SubElement(case, "skipped", message=f"the run is not valid; {message}")
    elif not check.met:
        SubElement(case, "failure", type=check.name, message=message).text = message
    else:
        SubElement(case, "system-out").text = value


def clean(text: str) -> str:
    """Without the characters that XML cannot carry, whatever a server put into its errors."""
    return _FORBIDDEN.sub("\ufffd", text)
