"""All rules in one place: what holds for a manifest of the chart whatever its values, each rule with its sentence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from manifests import pod_security, references, running, validity
from manifests.kube import Document

Policy = Callable[[list[Document]], Iterator[str]]
POLICIES: dict[str, Policy] = {
    policy.__name__: policy
    for policy in (
        pod_security.restricted,
        pod_security.read_only_root,
        pod_security.no_token,
        references.keys_exist,
        references.selectors_match,
        references.spread_takes_its_own,
        references.ports_agree,
        references.volumes_agree,
        references.claims_agree,
        running.grace_covers_the_end,
        running.triton_outlasts_its_front,
        running.probes_exist,
        running.rollout_waits,
        running.autoscaler_owns_replicas,
        running.images_are_pinned,
        running.secrets_stay_secret,
        running.memory_holds_shared_memory,
        running.requests_fit_limits,
        running.gpu_pods_are_tolerated,
        running.budgets_let_nodes_drain,
        validity.names_are_valid,
        validity.labels_are_valid,
        validity.standard_labels,
        validity.environment_is_valid,
        validity.nothing_is_null,
        validity.quantities_are_valid,
        validity.rollouts_are_valid,
    )
}


def broken(documents: list[Document], external: Collection[str] = ()) -> list[str]:
    """What ``documents`` break, as ``policy: sentence``.

    Args:
        documents: A whole manifest.
        external: Names of objects that are there without it.
    """
    sentences = [f"{name}: {sentence}" for name, policy in POLICIES.items() for sentence in policy(documents)]
    return sentences + [f"names_exist: {sentence}" for sentence in references.names_exist(documents, external)]
