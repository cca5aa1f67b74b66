"""What cannot work is refused while rendering, with where, what and the fix; and every refusal in the templates is met."""

from __future__ import annotations

import re
from typing import Any

import pytest
from manifests import cases, rendering

MODELS = cases.MODELS
GATEWAY = cases.SWITCHES["gateway"]["gateway"]
TWO: dict[str, Any] = {"a": {}, "b": {}}
Values = dict[str, Any]

# (values over MODELS, where, a part of what)
REFUSALS: list[tuple[Values, str, str]] = [
    ({"models": {}}, "models", "nothing says where the models are"),
    ({"models": {**MODELS, "pvc": {"claimName": "a"}}}, "models", "models.uri and models.pvc.claimName are all set"),
    ({"models": {"uri": "https://a/b"}}, "models.uri", "no object store"),
    ({"models": {"nfs": {"server": "a"}}}, "models.nfs.path", "not an absolute path"),
    ({"models": {"uri": "gs://a/b", "credentials": {"gcsKey": "k"}}}, "models.credentials.existingSecret", "no Secret"),
    (
        {"models": {"pvc": {"claimName": "a"}, "credentials": {"existingSecret": "s"}}},
        "models.credentials.existingSecret",
        "empty",
    ),
    (
        {"models": {**MODELS, "credentials": {"existingSecret": "s", "gcsKey": "k"}}},
        "models.credentials.gcsKey",
        "cannot open",
    ),
    ({"models": {**MODELS, "names": ["a"], "ready": ["b"]}}, "models.ready", "never loaded"),
    ({"models": {"image": {"reference": "a/b:1"}}}, "models.image.reference", "Kubernetes 1.35"),
    (
        {"models": {**MODELS, "fetch": False}, "engineBuild": {"mode": "init"}},
        "models.fetch",
        "engines are built on a copy",
    ),
    ({"models": {**MODELS, "fetch": False}}, "models.fetch", "passports are checked on a copy"),
    ({"models": {**MODELS, "needs": {"a": ["tokenizers"]}}, "image": {"tag": "26.09-py3"}}, "image", "does not have"),
    ({"models": {**MODELS, "needs": {"a": ["transformers"]}}}, "models.needs", "which neither NVIDIA's image nor"),
    ({"engineBuild": {"mode": "init"}, "accelerator": {"kind": "cpu"}}, "engineBuild.mode", "engines are of GPUs"),
    (
        {"engineBuild": {"mode": "init", "cache": {"existingClaim": "a", "size": "1Gi"}}},
        "engineBuild.cache",
        "both set",
    ),
    ({"engineBuild": {"mode": "job"}}, "engineBuild.cache", "there is none"),
    (
        {"engineBuild": {"mode": "init", "cache": {"size": "1Gi", "accessMode": "ReadWriteOnce"}}},
        "engineBuild.cache.accessMode",
        "ties it to one node",
    ),
    (
        {"engineBuild": {"mode": "job", "cache": {"size": "1Gi"}}, "accelerator": {"products": ["A", "B"]}},
        "accelerator.products",
        "wait in vain",
    ),
    ({"accelerator": {"kind": "mig"}}, "accelerator.mig.profile", "no profile is named"),
    ({"accelerator": {"mig": {"profile": "1g.10gb"}}}, "accelerator.mig.profile", "kind is gpu"),
    ({"accelerator": {"kind": "timeSliced", "count": 2}}, "accelerator.count", "no more compute"),
    ({"accelerator": {"kind": "cpu", "products": ["A"]}}, "accelerator.products", "kind is cpu"),
    (
        {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}},
        "resources.limits.memory",
        "does not exceed sharedMemory.size",
    ),
    ({"resources": {"requests": {"memory": "99Gi"}}}, "resources.requests.memory", "more than the limit"),
    ({"resources": {"requests": {"memory": "500m"}}}, "resources.requests.memory", "is not a size"),
    ({"resources": {"limits": {"nvidia.com/gpu": 2}}}, "resources.limits", "GPUs are of accelerator"),
    (
        {"variants": {"a": {"tools": {"resources": {"requests": {"nvidia.com/mig-1g.5gb": 1}}}}}},
        "variants.a.tools",
        "GPUs",
    ),
    ({"resources": {"limits": {"memory": 16}}}, "resources.limits.memory", "16 means 16 bytes"),
    ({"engineBuild": {"mode": "init", "cache": {"size": "20"}}}, "engineBuild.cache.size", "20 means 20 bytes"),
    ({"models": {**MODELS, "copySizeLimit": 20}}, "models.copySizeLimit", "20 means 20 bytes"),
    ({"server": {"httpPort": 8001}}, "server.grpcPort", "port 8001 is server.httpPort, too"),
    ({"server": {"extraArgs": ["cache"]}}, "server.extraArgs", "not --name=value"),
    ({"server": {"extraArgs": ["--http-port=1"]}}, "server.extraArgs", "set by the chart"),
    (
        {"lifecycle": {"terminationGracePeriodSeconds": 30}},
        "lifecycle.terminationGracePeriodSeconds",
        "30 is less than lifecycle.preStopSeconds 10 + front.drainSeconds",
    ),
    ({"serviceAccount": {"create": False, "annotations": {"a": "b"}}}, "serviceAccount.annotations", "create is false"),
    ({"admin": {"enabled": False, "existingSecret": "a"}}, "admin.existingSecret", "nothing asks for the key"),
    ({"admin": {"restrict": ["inference"]}}, "admin.restrict", "helm test asks for inference"),
    ({"fullnameOverride": "on"}, "fullnameOverride", "cannot name a Service"),
    ({"nameOverride": "a" * 38}, "fullnameOverride", "more than 38 characters"),
    ({"variants": {"A": {}}}, "variants.A", "goes into names"),
    ({"fullnameOverride": "a" * 36, "variants": {"long-variant": {}}}, "variants.long-variant", "more than 46"),
    ({"variants": {"a": {"accelerator": {"kind": "mig"}}}}, "variants.a.accelerator.mig.profile", "no profile"),
    ({"podLabels": {"app.kubernetes.io/name": "a"}}, "podLabels", "finds its pods"),
    ({"podAnnotations": {"tritonkit/front-checksum": "a"}}, "podAnnotations", "set by the chart"),
    ({"extraVolumes": [{"emptyDir": {}}]}, "extraVolumes", "an entry has no name"),
    ({"extraEnv": [{"name": "HOME", "value": "/"}]}, "extraEnv", "there already"),
    (
        {"autoscaling": {"enabled": True, "kind": "keda", "minReplicas": 9}},
        "autoscaling.maxReplicas",
        "below minReplicas",
    ),
    ({"autoscaling": {"enabled": True, "minReplicas": 0}}, "autoscaling.minReplicas", "does not go down to no pod"),
    (
        {"autoscaling": {"enabled": True, "kind": "keda", "minReplicas": 0}},
        "autoscaling.keda.activation.query",
        "no metric",
    ),
    ({"autoscaling": {"enabled": True}}, "autoscaling.kind", "they are off"),
    ({"service": {"type": "LoadBalancer"}}, "service.type", "LoadBalancer leads callers from outside here"),
    ({"service": {"grpc": {"type": "NodePort"}}}, "service.grpc.type", "NodePort leads callers from outside here"),
    (
        {"service": {"http": {"externalTrafficPolicy": "Local"}}},
        "service.http.externalTrafficPolicy",
        "set, but the Service's type is ClusterIP",
    ),
    (
        {"service": {"type": "NodePort", "http": {"loadBalancerClass": "a/b"}}},
        "service.http.loadBalancerClass",
        "type is NodePort",
    ),
    ({"service": {"http": {"ipFamilies": ["IPv4", "IPv6"]}}}, "service.http.ipFamilies", "two families"),
    (
        {"service": {"grpc": {"ipFamilies": ["IPv6"]}}, "front": {"enabled": False}},
        "front.enabled",
        "on which Triton does not listen",
    ),
    (
        {"autoscaling": {"enabled": True, "kind": "keda", "signal": "none"}},
        "autoscaling.signal",
        "nothing else to scale on",
    ),
    (
        {"autoscaling": {"enabled": True, "kind": "keda", "hpa": {"metrics": [{"type": "Resource"}]}}},
        "autoscaling.hpa.metrics",
        "set, but autoscaling.kind is keda",
    ),
    ({"enabled": False}, "enabled", "only a parent chart's condition"),
    (
        {"accelerator": {"kind": "dra", "productLabel": "a/b"}},
        "accelerator.productLabel",
        "not for a node's label",
    ),
    ({"accelerator": {"kind": "mps", "count": 2}}, "accelerator.count", "no more compute"),
    ({"tests": {"podAnnotations": {"helm.sh/hook": "a"}}}, "tests.podAnnotations", "one of helm test"),
    ({"gateway": {"weights": {"a": 1}}, "variants": TWO}, "gateway.weights", "only a Gateway"),
    ({"gateway": {"shadow": {"variant": "a"}}, "variants": TWO}, "gateway.shadow.variant", "only a Gateway"),
    ({"variants": {"a": {}, "b": {"front": {"enabled": False}}}}, "service.headless", "whose ports differ"),
    ({"server": {"extraArgs": ["--http-address=127.0.0.1"]}}, "server.extraArgs", "set by the chart"),
    ({"ingress": {"enabled": True}}, "ingress", "without a host name"),
    ({"ingress": {"enabled": True, "http": {"host": "a"}, "grpc": {"host": "a"}}}, "ingress.grpc.host", "both serve"),
    (
        {
            "ingress": {
                "enabled": True,
                "tlsSecretName": "web-tls",
                "http": {"host": "a.example", "annotations": {"cert-manager.io/issuer": "le"}},
                "grpc": {"host": "b.example", "annotations": {"cert-manager.io/issuer": "le"}},
            }
        },
        "ingress.grpc.tlsSecretName",
        "the other host name never gets a certificate",
    ),
    (
        {"monitoring": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
        "monitoring.serviceMonitor.enabled",
        "counted twice",
    ),
    ({"gateway": {**GATEWAY, "weights": {"c": 1}}, "variants": TWO}, "gateway.weights.c", "no such variant"),
    ({"gateway": {**GATEWAY, "weights": {"a": 0, "b": 0}}, "variants": TWO}, "gateway.weights", "every weight is 0"),
    ({"gateway": {**GATEWAY, "shadow": {"variant": "c"}}, "variants": TWO}, "gateway.shadow.variant", "no variant"),
    (
        {"gateway": {**GATEWAY, "shadow": {"variant": "a"}}, "variants": {"a": {}}},
        "gateway.shadow.variant",
        "only variant",
    ),
    (
        {"gateway": {**GATEWAY, "shadow": {"variant": "a"}, "weights": {"a": 1}}, "variants": TWO},
        "gateway.shadow.variant",
        "gets a weight, too",
    ),
    ({"engine": "vllm", "accelerator": {"kind": "cpu"}}, "engine", "runs on GPUs"),
    (
        {"engine": "vllm", "accelerator": {"count": 2}, "languageModel": {"tensorParallel": 4}},
        "accelerator.count",
        "2 GPUs, and languageModel.tensorParallel uses 4",
    ),
    (
        {"engine": "vllm", "accelerator": {"kind": "timeSliced"}, "languageModel": {"tensorParallel": 2}},
        "languageModel.tensorParallel",
        "takes whole GPUs",
    ),
    ({"engine": "vllm", "engineBuild": {"mode": "init"}}, "engineBuild.mode", "builds TensorRT plans, and vllm reads"),
    ({"engine": "vllm", "image": {"tag": "26.09-py3"}}, "image.tag", "does not have vllm"),
    ({"engine": "tensorrtLlm", "image": {"tag": "26.08-vllm-python-py3"}}, "image.tag", "does not have tensorrtLlm"),
    ({"image": {"tag": "26.09-vllm-python-py3"}}, "image.tag", "is the image of an engine, and engine is empty"),
    ({"languageModel": {"tensorParallel": 2}}, "languageModel.tensorParallel", "engine is empty"),
    (
        {"engine": "vllm", "extraEnv": [{"name": "VLLM_CACHE_ROOT", "value": "/opt/cache"}]},
        "extraEnv",
        "VLLM_CACHE_ROOT is /opt/cache, which cannot be written to",
    ),
    ({"weights": {"cache": {"size": "9Gi"}}}, "weights.cache.size", "only engines of language models"),
    ({"engine": "vllm", "weights": {"hub": {"repository": "a/b"}}}, "weights.hub.revision", "a branch of a/b may be"),
    ({"engine": "vllm", "weights": {"hub": {"tokenSecret": "s"}}}, "weights.hub.repository", "a token of a hub is"),
    (
        {"engine": "vllm", "weights": {"cache": {"size": "9Gi", "existingClaim": "a"}}},
        "weights.cache",
        "a claim has one maker",
    ),
    (
        {"engine": "vllm", "models": {"pvc": {"claimName": "a"}}, "weights": {"cache": {"size": "9Gi"}}},
        "weights.cache",
        "nothing is downloaded into it",
    ),
    (
        {"engine": "vllm", "weights": {"size": "140Gi", "cache": {"size": "100Gi"}}},
        "weights.cache.size",
        "100Gi does not hold the 140Gi of weights.size",
    ),
    (
        {"engine": "vllm", "weights": {"cache": {"size": "9Gi", "accessMode": "ReadWriteOnce"}}},
        "weights.cache.accessMode",
        "ties them to one node",
    ),
    (
        {"autoscaling": {"enabled": True, "kind": "keda", "signal": "kvCacheUsage"}},
        "autoscaling.signal",
        "kvCacheUsage is vLLM's",
    ),
    (
        {"engine": "vllm", "autoscaling": {"enabled": True, "kind": "keda", "moreSignals": {"waitingRequests": 4}}},
        "autoscaling.moreSignals",
        "waitingRequests is a gauge, and NVIDIA's vLLM backend exports none",
    ),
    (
        {"engine": "vllm", "autoscaling": {"enabled": True, "kind": "keda", "signal": "engineRequests"}},
        "autoscaling.target",
        "engineRequests has no default",
    ),
    (
        {"autoscaling": {"enabled": True, "kind": "keda", "moreSignals": {"inFlightRequests": 4}}},
        "autoscaling.moreSignals",
        "is autoscaling.signal already",
    ),
    ({"engine": "tensorrtLlm", "languageModel": {"nodes": 2}}, "languageModel.nodes", "only vllm joins nodes here"),
    (
        {"engine": "vllm", "languageModel": {"nodes": 2}, "rollout": {"profile": "recreate"}},
        "rollout.profile",
        "which a LeaderWorkerSet does not know",
    ),
    (
        {
            "engine": "vllm",
            "languageModel": {"nodes": 2},
            "models": {**MODELS, "fetch": False},
            "engineBuild": {"checkPassports": False},
        },
        "models.fetch",
        "every node of a model reads the weights from a copy",
    ),
    ({"gateway": {**GATEWAY, "parentRefs": []}}, "gateway.parentRefs", "no Gateway for the"),
    ({"gateway": {"enabled": True, "parentRefs": [{"name": "a"}]}}, "gateway.http.hostnames", "not both"),
]
# Refused by the schema, before any template: (values, the JSON pointer that helm names)
BY_SCHEMA: list[tuple[Values, str]] = [
    ({"modles": {}}, "modles"),
    ({"server": {"httpPrt": 1}}, "/server"),
    ({"server": {"httpPort": "8000"}}, "/server/httpPort"),
    ({"server": {"httpPort": 80}}, "/server/httpPort"),
    ({"engineBuild": {"mode": "of"}}, "/engineBuild/mode"),
    ({"image": {"tag": "latest"}}, "/image/tag"),
    ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
    ({"variants": {"a": {"service": {}}}}, "/variants/a"),
    ({"variants": {"a": {"replicas": "2"}}}, "/replicas"),
    ({"podLabels": {"a": 1}}, "/podLabels/a"),
    ({"podAnnotations": {"a b": "c"}}, "/podAnnotations"),
    ({"monitoring": {"podMonitor": {"labels": {"app.kubernetes.io/name": "a"}}}}, "/monitoring/podMonitor/labels"),
    ({"monitoring": {"prometheusRule": {"alertLabels": {"severity": "a"}}}}, "/monitoring/prometheusRule/alertLabels"),
    ({"networkPolicy": {"egress": {"dnsPorts": []}}}, "/networkPolicy/egress/dnsPorts"),
    ({"extraEnv": [{"name": "A", "value": 1}]}, "/extraEnv/0/value"),
    ({"sharedMemory": {"size": "1GB"}}, "/sharedMemory/size"),
    ({"resources": {"limits": {"memory": "0"}}}, "/resources/limits/memory"),
    ({"pdb": {"maxUnavailable": 0}}, "/pdb/maxUnavailable"),
    ({"networkPolicy": {"ingress": {"clients": [{"ipBlock": {"cidr": "10.0.0.0"}}]}}}, "/clients/0/ipBlock/cidr"),
    ({"networkPolicy": {"ingress": {"clients": [{"namespaceSelector": {"matchlabels": {}}}]}}}, "/namespaceSelector"),
    ({"networkPolicy": {"egress": {"dns": [{}]}}}, "/networkPolicy/egress/dns/0"),
    (
        {"autoscaling": {"keda": {"triggers": [{"type": "cron", "metadata": {"desiredReplicas": 2}}]}}},
        "/desiredReplicas",
    ),
    ({"autoscaling": {"keda": {"triggers": [{"type": "cron"}]}}}, "/autoscaling/keda/triggers/0"),
    ({"admin": {"restrict": ["health"]}}, "/admin/restrict/0"),  # the probes would be answered 403
]


def refusal(values: Values, kubernetes: str = "1.34") -> str:
    with pytest.raises(rendering.Refused) as refused:
        rendering.documents(rendering.case(values={"models": MODELS, **values}, kubernetes=kubernetes))
    return str(refused.value)


@pytest.fixture(scope="module", autouse=True)
def _rendered() -> None:
    every = [values for values, _, _ in REFUSALS] + [values for values, _ in BY_SCHEMA]
    rendering.warm(rendering.case(values={"models": MODELS, **values}, kubernetes="1.34") for values in every)


@pytest.mark.parametrize(("values", "where", "what"), REFUSALS, ids=[f"{where}: {what}" for _, where, what in REFUSALS])
def test_what_cannot_work_is_refused_with_a_fix(values: Values, where: str, what: str) -> None:
    message = refusal(values)
    assert re.search(rf"^{re.escape(where)}[^\n]*: [^\n]*{re.escape(what)}", message, re.MULTILINE), message
    assert re.search(r"^  fix: \S", message, re.MULTILINE)


@pytest.mark.parametrize(("values", "pointer"), BY_SCHEMA, ids=[pointer for _, pointer in BY_SCHEMA])
def test_what_is_no_value_is_refused_by_its_name(values: Values, pointer: str) -> None:
    assert pointer in refusal(values)


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"fullnameOverride": "8.Web"}, "such as triton-8-web"),
        ({"fullnameOverride": "on"}, "such as triton-on"),
        ({"nameOverride": "a" * 38}, f"such as demo-{'a' * 33}"),
        (
            {"fullnameOverride": "a" * 36, "variants": {"long-variant": {}}},
            f"at most 33 characters, such as {'a' * 33}",
        ),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_one_that_can(values: Values, hint: str) -> None:
    message = refusal(values)
    assert hint in message
    name = message.partition("such as ")[2].split()[0]
    assert rendering.text(rendering.case(values={"models": MODELS, **values, "fullnameOverride": name}))


def test_dra_is_refused_before_its_kubernetes() -> None:
    assert "Kubernetes 1.34, and this is v1.33" in refusal({"accelerator": {"kind": "dra"}}, kubernetes="1.33")


def test_every_refusal_in_the_templates_is_met_here() -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted(rendering.CHART.glob("templates/**/*")) if path.is_file()
    )
    texts = re.findall(r'"tritonkit\.fail" \(dict "where" .+? "what" \(?(?:printf )?"((?:[^"\\]|\\.)+)"', sources)
    assert len(texts) > 40
    met = [refusal(values) for values, *_ in REFUSALS]
    met.append(refusal({"accelerator": {"kind": "dra"}}, kubernetes="1.33"))
    met.append(refusal({"service": {"grpc": {"trafficDistribution": "PreferSameNode"}}}, kubernetes="1.33"))
    forms = {text: re.escape(text.replace('\\"', '"')) for text in texts}
    patterns = {text: re.sub(r"%[sdvq]", ".*", form) for text, form in forms.items()}
    assert [text for text, pattern in patterns.items() if not any(re.search(pattern, message) for message in met)] == []
