"""The renders that are proved: what examples there are, what switches, and which Kubernetes each needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from manifests.kube import walk
from manifests.rendering import CHART, Case, case
from tritonkit.kubetools.validation import VERSIONS

EXAMPLES = sorted((CHART / "examples").glob("values-*.yaml"))
OLDEST, NEWEST = VERSIONS[0], VERSIONS[-1]
MODELS = {"uri": "s3://models.example/versions/20261101-1a2b3c"}
_GATEWAY = {
    "enabled": True,
    "parentRefs": [{"name": "public", "namespace": "gateways"}],
    "http": {"hostnames": ["models.example"]},
    "grpc": {"hostnames": ["grpc.models.example"]},
}
_EVERYTHING_SEEN = {
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True, "slo": {"latencyMs": 50}},
    "dashboard": {"enabled": True},
}
_TWO = {"stable": {}, "canary": {"image": {"tag": "26.08-py3"}}}

# Values over MODELS; each switch by itself, and some that meet.
SWITCHES: dict[str, dict[str, Any]] = {
    "default": {},
    "front off": {"front": {"enabled": False}},
    "exec sleep": {"lifecycle": {"sleep": "exec"}},
    "in place": {"rollout": {"profile": "inPlace"}, "replicas": 3},
    "recreate": {"rollout": {"profile": "recreate"}},
    "longer grace": {"lifecycle": {"terminationGracePeriodSeconds": 600}},
    "hpa": {"autoscaling": {"enabled": True}, "monitoring": _EVERYTHING_SEEN},
    "hpa external": {
        "autoscaling": {"enabled": True, "signal": "queueTime", "target": 20, "hpa": {"metric": "external"}},
        "monitoring": _EVERYTHING_SEEN,
    },
    "keda": {"autoscaling": {"enabled": True, "kind": "keda", "signal": "pendingRequests"}},
    "keda to zero": {
        "autoscaling": {
            "enabled": True,
            "kind": "keda",
            "minReplicas": 0,
            "keda": {"activation": {"query": "sum(rate(gateway_requests_total[1m]))"}},
        }
    },
    "gateway": {"gateway": _GATEWAY},
    "canary": {"gateway": {**_GATEWAY, "weights": {"stable": 95, "canary": 5}}, "variants": _TWO},
    "shadow": {"gateway": {**_GATEWAY, "shadow": {"variant": "canary"}}, "variants": _TWO},
    "own metrics": {
        "autoscaling": {
            "enabled": True,
            "signal": "none",
            "hpa": {
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
                    }
                ]
            },
        }
    },
    "own triggers": {
        "autoscaling": {
            "enabled": True,
            "kind": "keda",
            "keda": {
                "triggers": [
                    {
                        "type": "cron",
                        "metadata": {
                            "timezone": "UTC",
                            "start": "0 8 * * *",
                            "end": "0 18 * * *",
                            "desiredReplicas": "3",
                        },
                    }
                ]
            },
        }
    },
    "own autoscaler": {
        "replicas": None,
        "extraObjects": [
            {
                "apiVersion": "autoscaling/v2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": {
                    "name": "mine",
                    "labels": {f"app.kubernetes.io/{name}": "mine" for name in ("name", "instance", "managed-by")},
                },
                "spec": {
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "demo-tritonkit"},
                    "minReplicas": 2,
                    "maxReplicas": 8,
                },
            }
        ],
    },
    "services of their own": {
        "service": {
            "grpc": {
                "type": "LoadBalancer",
                "loadBalancerClass": "service.k8s.aws/nlb",
                "externalTrafficPolicy": "Local",
                "ipFamilyPolicy": "PreferDualStack",
                "ipFamilies": ["IPv4", "IPv6"],
            },
            "http": {"internalTrafficPolicy": "Local"},
        },
        "networkPolicy": {"ingress": {"clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}},
    },
    "every platform": {
        "networkPolicy": {"platforms": ["gke", "aks", "openshift", "istio", "istioAmbient"]},
        "commonLabels": {"team": "search"},
    },
    "ingress": {
        "ingress": {"enabled": True, "className": "nginx", "http": {"host": "a.example"}, "grpc": {"host": "b.example"}}
    },
    "monitoring": {"monitoring": _EVERYTHING_SEEN},
    "service monitor": {"monitoring": {"serviceMonitor": {"enabled": True}}},
    "no network policy": {"networkPolicy": {"enabled": False}},
    "tracing": {"tracing": {"enabled": True}},
    "engines in init": {"engineBuild": {"mode": "init"}},
    "engines in init, cached": {"engineBuild": {"mode": "init", "cache": {"existingClaim": "plans"}}},
    "engines by job": {"engineBuild": {"mode": "job", "cache": {"size": "20Gi"}}},
    "passports of the loaded": {"models": {"pvc": {"claimName": "models"}, "names": ["a", "b"]}},
    "no passports": {"engineBuild": {"checkPassports": False}},
    "more than NVIDIA's image": {"models": {**MODELS, "needs": {"a": ["tokenizers"], "b": ["tritonkit_onnxruntime"]}}},
    "fetched": {"models": {**MODELS, "fetch": True, "copySizeLimit": "20Gi"}},
    "some models": {"models": {**MODELS, "names": ["a", "b"], "ready": ["a"]}},
    "products": {"accelerator": {"products": ["NVIDIA-A10G", "Tesla-T4"], "count": 2}},
    "mig": {"accelerator": {"kind": "mig", "mig": {"profile": "1g.10gb"}}},
    "time-sliced": {"accelerator": {"kind": "timeSliced", "timeSliced": {"renamed": True}}},
    "mps": {"accelerator": {"kind": "mps", "products": ["NVIDIA-L4"]}},
    "pool's label": {"accelerator": {"productLabel": "cloud.google.com/gke-accelerator", "products": ["nvidia-l4"]}},
    "dra": {"accelerator": {"kind": "dra", "products": ["NVIDIA-L4"]}},
    "cpu": {"accelerator": {"kind": "cpu"}},
    "gcs": {"models": {"uri": "gs://bucket/prefix", "credentials": {"existingSecret": "gcs", "gcsKey": "key.json"}}},
    "azure": {"models": {"uri": "as://account/container/prefix", "credentials": {"existingSecret": "azure"}}},
    "minio": {"models": {"uri": "s3://http://minio.storage.svc:9000/bucket/prefix", "region": "eu-west-1"}},
    "vllm": {"engine": "vllm", "languageModel": {"tensorParallel": 4}, "sharedMemory": {"size": "4Gi"}},
    "vllm, no front": {"engine": "vllm", "front": {"enabled": False}, "models": {**MODELS, "names": ["llama"]}},
    "tensorrt-llm by dra": {
        "engine": "tensorrtLlm",
        "accelerator": {"kind": "dra"},
        "languageModel": {"tensorParallel": 2},
    },
    "weights kept": {"engine": "vllm", "weights": {"cache": {"size": "300Gi"}, "size": "140Gi"}},
    "weights from a hub": {
        "engine": "vllm",
        "weights": {"hub": {"repository": "a/b", "revision": "5f3c" * 10, "tokenSecret": "hub"}},
    },
    "weights from a hub, kept": {
        "engine": "tensorrtLlm",
        "models": {"pvc": {"claimName": "models"}, "names": ["llama"]},
        "weights": {"hub": {"repository": "a/b", "revision": "5f3c" * 10}, "cache": {"existingClaim": "weights"}},
    },
    "scaled on a KV cache": {
        "engine": "vllm",
        "image": {"repository": "registry.example/triton-vllm", "tag": "1"},
        "autoscaling": {"enabled": True, "signal": "waitingRequests", "moreSignals": {"kvCacheUsage": 0.8}},
        "monitoring": {"prometheusRule": {"enabled": True, "slo": {"firstTokenMs": 500}}},
    },
    "two nodes": {
        "engine": "vllm",
        "languageModel": {"nodes": 2, "tensorParallel": 8},
        "models": {"pvc": {"claimName": "models"}, "names": ["large"]},
        "autoscaling": {"enabled": True, "kind": "keda", "signal": "engineRequests", "target": 40},
        "monitoring": _EVERYTHING_SEEN,
    },
    "two nodes beside one": {
        "autoscaling": {"enabled": True},
        "monitoring": _EVERYTHING_SEEN,
        "variants": {"large": {"engine": "vllm", "languageModel": {"nodes": 2}}, "small": {}},
    },
    "an engine beside none": {"variants": {"chat": {"engine": "vllm"}, "vision": {}}},
    "pvc": {"models": {"pvc": {"claimName": "models", "subPath": "a/b"}}},
    "nfs": {"models": {"nfs": {"server": "10.0.0.2", "path": "/exports/models"}}},
    "image volume": {"models": {"image": {"reference": "registry.example/models:1.2"}}},
    "variants": {
        "service": {"headless": False},
        "variants": {
            "a10g": {"accelerator": {"products": ["NVIDIA-A10G"]}, "replicas": 2},
            "t4": {"accelerator": {"products": ["Tesla-T4"]}, "front": {"enabled": False}},
        },
    },
    "scaled variants": {
        "autoscaling": {"enabled": True, "kind": "keda"},
        "variants": {"fast": {"autoscaling": {"maxReplicas": 9}}, "fixed": {"autoscaling": {"enabled": False}}},
    },
    "own service account": {"serviceAccount": {"create": False, "name": "triton"}},
    "workload identity": {"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a"}}},
    "admin key": {"admin": {"existingSecret": "admin"}},
    "open admin": {"admin": {"enabled": False}},
    "no budget, no tests": {"pdb": {"enabled": False}, "tests": {"enabled": False}},
    "extras": {
        "extraEnv": [{"name": "A", "value": "1"}],
        "extraEnvFrom": [{"configMapRef": {"name": "settings"}}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "podAnnotations": {"a.example/b": "c"},
        "podLabels": {"team": "search"},
        "scheduling": {"priorityClassName": "high", "nodeSelector": {"pool": "gpu"}},
        "imagePullSecrets": ["registry"],
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": "more",
                    "labels": {f"app.kubernetes.io/{name}": "other" for name in ("name", "instance", "managed-by")},
                },
            }
        ],
    },
    "digests": {
        "image": {"digest": f"sha256:{'a' * 64}"},
        "tools": {"image": {"digest": f"sha256:{'b' * 64}"}},
        "front": {"image": {"digest": f"sha256:{'c' * 64}"}},
    },
}
# The first Kubernetes that has what a switch, or an example, asks for.
NEEDS = {
    "dra": "1.34",
    "tensorrt-llm by dra": "1.34",
    "image volume": "1.35",
    "values-dra": "1.34",
    "values-image-volume": "1.35",
}


def values_of(switch: str) -> dict[str, Any]:
    """The values of a switch; the models are in an object store unless it says otherwise."""
    return {"models": MODELS, **SWITCHES[switch]}


def new_enough(name: str, kubernetes: str) -> bool:
    """Whether a Kubernetes has what a switch or example needs."""
    return VERSIONS.index(kubernetes) >= VERSIONS.index(NEEDS.get(name, OLDEST))


def matrix() -> Iterator[tuple[str, Case]]:
    """Every example on the oldest Kubernetes, the newest and one between; every switch on one that supports it."""
    between = VERSIONS[1:-1]
    for i, example in enumerate(EXAMPLES):
        for kubernetes in (OLDEST, between[i % len(between)], NEWEST):
            yield example.stem, case(example, kubernetes=kubernetes)
    for i, switch in enumerate(SWITCHES):
        able = [kubernetes for kubernetes in VERSIONS if new_enough(switch, kubernetes)]
        yield switch, case(values=values_of(switch), kubernetes=able[i % len(able)])
        if too_old := [kubernetes for kubernetes in VERSIONS if kubernetes not in able]:
            yield switch, case(values=values_of(switch), kubernetes=too_old[-1])


def external_names(render: Case) -> set[str]:
    """Every string in the values of a case: what the manifest names but does not make must have been named there."""
    values = [json.loads(render.values), *(yaml.safe_load(file.read_text(encoding="utf-8")) for file in render.files)]
    return {text for value in values for _, text in walk(value) if isinstance(text, str)}
