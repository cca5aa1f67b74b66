"""Lint beside the real server on every mutant: what Triton refuses and lint does not, and the other way round.

Run it from the project's root with ``make bench-lint``. The suite runs a fixed sample (``test_agreement.py``).
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonkit.repository import lint
from tritonkit.repository.lint import RULES, registry

from .lab import PARTS, ask, core_only, write
from .mutations import Mutant, mutants

# Who refuses a model on the server here; rules that others enforce are not compared.
ENFORCED_HERE = {registry.CORE, registry.PYTHON, registry.ONNXRUNTIME, registry.TRITONKIT, "the model's backend"}
# The release of the embedded server.
IMAGE = (24, 10)
LOAD_S = 15.0
SERVERS = 2
# What only the machine with the server knows: whether it has a GPU, and libraries that the image may or may not have.
_MACHINE = re.compile(
    r"no GPUs are available|number of CUDA devices|does not support GPUs|unable to find backend library|for repo agent '.+'"
)


@dataclass(frozen=True)
class Comparison:
    """What both say of each mutant, by its title.

    Attributes:
        refused: What Triton says of those that it refuses.
        errors: Lint's errors of the same.
        warned: Those that the embedded server's onnxruntime backend may refuse by lint's warnings, and NVIDIA's takes.
        machine: Those of ``refused`` that only the machine knows.
        loaded: Number of those that load.
    """

    refused: dict[str, str]
    errors: dict[str, str]
    warned: frozenset[str]
    machine: frozenset[str]
    loaded: int

    @property
    def knowable(self) -> set[str]:
        """Refusals that a look at the files can foresee."""
        return set(self.refused) - self.machine

    @property
    def missed(self) -> dict[str, str]:
        """Refusals that lint does not foresee."""
        return {title: self.refused[title] for title in sorted(self.knowable - set(self.errors) - self.warned)}

    @property
    def false(self) -> dict[str, str]:
        """Lint's errors in models that load."""
        return {title: self.errors[title] for title in sorted(set(self.errors) - set(self.refused))}

    @property
    def summary(self) -> str:
        """One line with the counts."""
        known, missed = len(self.knowable), len(self.missed)
        share = (known - missed) / known if known else 1.0
        return (
            f"{len(self.refused) + self.loaded} configurations: Triton refuses {len(self.refused)}, {len(self.machine)} of "
            f"them for what only the machine knows; of the other {known} lint foresees {known - missed} ({share:.1%}); "
            f"errors that are none: {len(self.false)}"
        )


def compare(
    chosen: Sequence[Mutant], place: Path, *, real_backends: bool = False, servers: int = SERVERS
) -> Comparison:
    """Put each mutant to lint and to the real server.

    Args:
        chosen: The mutants.
        place: An empty folder.
        real_backends: Whether Python models too are loaded by their real backend, which takes a hundred times as long.
        servers: How many servers with real backends share the work.
    """
    names = {f"m{number}": mutant for number, mutant in enumerate(chosen)}
    for name, files in (PARTS | {name: mutant.files for name, mutant in names.items()}).items():
        write(place / "repository" / name, files)
    findings = lint.check(place / "repository", lint.Options(image=IMAGE)).findings
    errors = {
        finding.model: f"{finding.rule} {finding.message}"
        for finding in findings
        if finding.severity == "error" and RULES[finding.rule].enforced_by in ENFORCED_HERE
    }
    warned = {
        finding.model
        for finding in findings
        if finding.severity == "warning" and RULES[finding.rule].enforced_by == registry.ONNXRUNTIME
    }
    real = {name for name, mutant in names.items() if real_backends or mutant.base.real}
    answers: dict[str, str] = {}
    if rest := dict.fromkeys(sorted(names.keys() - real), LOAD_S):
        (place / "core").mkdir()
        answers = ask(place / "repository", rest, place / "core", core_only(place / "backends"), 1)
        # What the core takes, its backend may still refuse: that is for the real one to say.
        real |= {name for name in rest if name in errors and not answers[name]}
    if real:
        (place / "real").mkdir()
        answers |= ask(place / "repository", dict.fromkeys(sorted(real), LOAD_S), place / "real", servers=servers)
    refused = {names[name].title: answer for name, answer in answers.items() if answer}
    return Comparison(
        refused,
        {names[name].title: words for name, words in errors.items() if name in names},
        frozenset(names[name].title for name in warned if name in names),
        frozenset(title for title, words in refused.items() if _MACHINE.search(words)),
        len(answers) - len(refused),
    )


def reason(words: str) -> str:
    """The sentence of Triton's log that says why, without the model's own name."""
    lines = [line for line in words.splitlines() if re.match(r"^[EW]\d{4}", line)] or words.splitlines()
    return re.sub(r"\bm\d+\b", "MODEL", lines[0])[:240]


def main(arguments: Sequence[str]) -> int:
    """Compare all mutants whose title contains one of the arguments; 1 if lint reports an error in a model that loads."""
    words = [word for word in arguments if word != "--real"]
    chosen = [mutant for mutant in mutants() if not words or any(word in mutant.title for word in words)]
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tritonkit-lint-") as place:
        comparison = compare(chosen, Path(place), real_backends="--real" in arguments)
    report = Path("reports/lint/comparison.json")
    report.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "summary": comparison.summary,
        "missed": {title: reason(words) for title, words in comparison.missed.items()},
        "false": comparison.false,
        "machine": {title: reason(comparison.refused[title]) for title in sorted(comparison.machine)},
    }
    report.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for title, answer in comparison.missed.items():
        print(f"missed  {title}\n        {reason(answer)}")  # noqa: T201
    for title, error in comparison.false.items():
        print(f"false   {title}\n        {error}")  # noqa: T201
    print(f"{comparison.summary}; {time.monotonic() - start:.0f} s; {report} has all of it")  # noqa: T201
    return int(bool(comparison.false))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
