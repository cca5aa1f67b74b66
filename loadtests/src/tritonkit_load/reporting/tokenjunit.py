"""A load test of a language model as JUnit XML; the dialect is that of :mod:`.reporting.junit`."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from tritonkit_load.reporting import junit
from tritonkit_load.reporting.page import counted, short
from tritonkit_load.tokens.result import TokenResult


def render(result: TokenResult) -> str:
    """The XML, with its declaration."""
    suite = junit.new_suite(result.created, result.load.duration_s, {"command": result.command, **result.environment})
    validity = SubElement(suite, "testcase", classname="load test", name="the run is valid")
    if not result.verdict.valid:
        message = junit.clean("; ".join(result.generator.why) or "no request was measured")
        SubElement(validity, "error", type="invalid run", message=message).text = message
    _answers(suite, result)
    for check in result.verdict.checks:
        junit.bound(suite, check, valid=result.verdict.valid)
    return junit.document(suite)


def _answers(suite: Element, result: TokenResult) -> None:
    """The model answered; without an SLO, every request."""
    of = result.figures
    case = SubElement(suite, "testcase", classname=junit.clean(result.model), name="answers")
    errors = "\n".join(f"{count:,} x {kind}: {of.messages.get(kind, '')}" for kind, count in of.errors.items())
    if of.failed == of.requests or (of.failed and result.verdict.met is None):
        message = f"{of.failed:,} of {counted(of.requests, 'request')} failed"
        kind = max(of.errors, key=lambda name: of.errors[name], default="errors")
        SubElement(case, "failure", type=junit.clean(kind), message=message).text = junit.clean(errors or message)
    figures = f"TTFT p95 {short(of.ttft_ms.p95)} ms, ITL p95 {short(of.itl_ms.p95)} ms"
    SubElement(case, "system-out").text = junit.clean(
        f"{counted(of.requests, 'request')}, {of.failed:,} failed, {short(of.output_tokens_per_s)} output tokens per "
        f"second, {figures}\n{errors}".strip()
    )
