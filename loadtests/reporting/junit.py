"""A load test as JUnit XML, which CI servers show: the run's validity, each model, and each bound of its SLO.

The dialect is what Jenkins and GitLab read: ``testsuites/testsuite/testcase`` with ``failure``, ``error``, ``skipped``.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from load.result import Check, ModelResult, Result

from reporting import verdict_text
from reporting.page import counted, short

_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def render(result: Result) -> str:
    """The XML, with its declaration."""
    time = f"{result.load.duration_s:.3f}"
    suite = Element("testsuite", name="load test", timestamp=_clean(result.created), time=time)
    properties = SubElement(suite, "properties")
    for name, value in {"command": result.command, **result.environment}.items():
        SubElement(properties, "property", name=_clean(name), value=_clean(str(value)))
    _validity(suite, result)
    for name, model in result.models.items():
        _answered(suite, name, model, result)
        for check in result.verdict.checks:
            if check.model == name:
                _bound(suite, check, result)
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
        SubElement(case, "error", type="invalid run", message=_clean(message)).text = _clean(message)


def _answered(suite: Element, name: str, model: ModelResult, result: Result) -> None:
    """The model answered; without an SLO, to every request."""
    case = SubElement(suite, "testcase", classname=_clean(name), name="answers")
    errors = "\n".join(f"{count:,} x {kind}: {model.messages.get(kind, '')}" for kind, count in model.errors.items())
    if model.latency is None or (model.failed and result.verdict.met is None):
        message = f"{model.failed:,} of {counted(model.requests, 'request')} failed"
        SubElement(case, "failure", type="errors", message=message).text = _clean(errors or message)
    latency = model.latency
    figures = f"p50 {short(latency.p50)} ms, p99 {short(latency.p99)} ms" if latency else "no answer"
    SubElement(case, "system-out").text = _clean(
        f"{counted(model.requests, 'request')}, {model.failed:,} failed, {short(model.offered)} due and "
        f"{short(model.throughput)} answered per second, {figures}\n{errors}".strip()
    )


def _bound(suite: Element, check: Check, result: Result) -> None:
    """One bound of the SLO; skipped where the run may not say."""
    value, bound = verdict_text.value_and_bound(check)
    name = f"{verdict_text.BOUNDS.get(check.name, check.name)} {bound}"
    case = SubElement(suite, "testcase", classname=_clean(check.model), name=_clean(name))
    message = _clean(verdict_text.describe_check(check, alone=True))
    if not result.verdict.valid:
        SubElement(case, "skipped", message=f"the run is not valid; {message}")
    elif not check.met:
        SubElement(case, "failure", type=check.name, message=message).text = message
    else:
        SubElement(case, "system-out").text = value


def _clean(text: str) -> str:
    """Without the characters that XML cannot carry, whatever a server put into its errors."""
    return _FORBIDDEN.sub("\ufffd", text)
