"""Makes the JSON schemas in ``tritonkit/kubetools/crds``, of kinds that the chart renders and Kubernetes lacks.

They are recovered from the npm packages of kubernetes-models, whose validators are compiled from the projects' own Go
types; ``python helm/crd_schemas.py`` needs npm and a network, reading what it wrote needs neither.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonkit import atomic
from tritonkit.cli.output import run_command
from tritonkit.errors import MissingError
from tritonkit.kubetools import validation

Schema = dict[str, Any]
PACKAGES = {
    "@kubernetes-models/keda@2.0.0": (
        "ComGithubKedacoreKedaV2ApisKedaV1alpha1",
        ["ScaledObject", "TriggerAuthentication"],
    ),
    "@kubernetes-models/gateway-api@2.0.0": ("IoK8sSigsGatewayApiApisV1", ["Gateway", "GRPCRoute", "HTTPRoute"]),
    "@kubernetes-models/prometheus-operator@6.0.0": (
        "ComGithubPrometheusOperatorPrometheusOperatorPkgApisMonitoringV1",
        ["PodMonitor", "PrometheusRule", "ServiceMonitor"],
    ),
}
SOURCE = (
    "compiled by kubernetes-models (MIT, Tommy Chen) from the Go types (Apache-2.0) of the project that owns the kind"
)
_LIMITS = ("maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minimum")
_STRING = r'"((?:[^"\\]|\\.)*)"'
_CALL = re.compile(rf"(validate\d+)\(data(?:\.([\w$]+)|\[{_STRING}\]|(\[i0\])|(\[key0\])|),\{{instancePath")


@dataclass
class Package:
    """The compiled validators of one package, read as text."""

    folder: Path
    definitions: dict[str, Schema]

    def reference(self, file: str) -> Schema:
        """A ``$ref`` to the type that ``file`` validates, which is then in ``definitions``."""
        name = Path(file).stem
        if "kubernetes-models/" in file:
            return {"$ref": f"{validation.DEFINITIONS}{_kubernetes_names()[name]}"}
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self._read(self.folder / f"{name}.js")
        return {"$ref": f"#/definitions/{name}"}

    def _read(self, path: Path) -> Schema:
        text = path.read_text(encoding="utf-8")
        imports = dict(re.findall(r'import\{validate as (validate\d+)\}from"([^"]+)"', text))
        enums = {name: json.loads(values) for name, values in re.findall(r"let (\w+_enum)=(\[[^\]]*\])", text)}
        parts = re.split(r"function (validate\d+)\(data,\{instancePath=", text)
        bodies = dict(zip(parts[1::2], parts[2::2], strict=True))
        main = re.search(r"export const validate=(validate\d+);", text)
        if main is None:
            raise ValueError(f"{path} has another form than its package's other files")

        def schema(name: str) -> Schema:
            return self.reference(imports[name]) if name in imports else self._body(bodies[name], enums, schema)

        return schema(main[1])

    def _body(self, body: str, enums: dict[str, list[str]], schema: Callable[[str], Schema]) -> Schema:
        body_schema = _checks(body, enums)
        for name, plain, quoted, item, key in _CALL.findall(body):
            below = schema(name)
            if plain or quoted:
                body_schema.setdefault("properties", {})[plain or json.loads(f'"{quoted}"')] = below
            elif item:
                body_schema["items"] = below
            elif key:
                body_schema["additionalProperties"] = below
            else:
                body_schema.setdefault("allOf", []).append(below)
        same = body_schema.pop("allOf", [])
        if len(same) == 1 and "properties" not in body_schema:
            return dict(same[0])
        for embedded in same:  # Go's embedded structs: their fields are the outer one's
            inner = self.definitions[embedded["$ref"].rpartition("/")[2]]
            body_schema["properties"] = body_schema.get("properties", {}) | inner["properties"]
            if required := [*body_schema.get("required", []), *inner.get("required", [])]:
                body_schema["required"] = required
        if "properties" in body_schema:  # as the API server's strict field validation has it
            body_schema.setdefault("additionalProperties", False)
        return body_schema


def _checks(body: str, enums: dict[str, list[str]]) -> Schema:
    """The schema that a compiled function checks by itself, read from the keyword and parameter of each error."""
    schema: Schema = {}
    if kinds := re.findall(r'keyword:"type",params:\{type:"(\w+)"', body):
        schema["type"] = kinds[0]
    limits = rf'keyword:"({"|".join(_LIMITS)})",params:\{{(?:comparison:"[<>=]+",)?limit:(-?[\de]+)'
    for keyword, limit in re.findall(limits, body):
        schema[keyword] = int(float(limit))
    for pattern in re.findall(rf'keyword:"pattern",params:\{{pattern:{_STRING}\}}', body):
        schema["pattern"] = json.loads(f'"{pattern}"')
    for name in re.findall(r'keyword:"enum",params:\{allowedValues:(\w+)', body):
        schema["enum"] = enums[name]
    if required := re.findall(rf'keyword:"required",params:\{{missingProperty:{_STRING}', body):
        schema["required"] = required
    return schema


def _kubernetes_names() -> dict[str, str]:
    """``IoK8sApiCoreV1Container`` → ``io.k8s.api.core.v1.Container``."""
    names = validation.definitions(validation.VERSIONS[-1])["$defs"]
    return {"".join(part[:1].upper() + part[1:] for part in re.split(r"[.-]", name)): name for name in names}


def _download(package: str, into: Path) -> Path:
    try:
        done = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=into, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingError(f"npm cannot fetch {package}: {error}", "install npm, and check the network") from error
    with tarfile.open(into / done.stdout.split()[-1]) as archive:
        archive.extractall(into / "unpacked", filter="data")
    return into / "unpacked/package/_schemas"


def main() -> int:
    """Write all schemas anew."""
    for package, (prefix, kinds) in PACKAGES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = _download(package, Path(place))
            for kind in kinds:
                reader = Package(folder, {})
                top = reader.reference(f"{prefix}{kind}.js")
                about = {"$comment": f"{package}: {SOURCE}", **top, "definitions": reader.definitions}
                (group,) = reader.definitions[f"{prefix}{kind}"]["properties"]["apiVersion"]["enum"]
                target = validation.CRDS / f"{kind.lower()}-{group.replace('/', '-')}.json"
                atomic.write(target, (json.dumps(about, indent=1, sort_keys=True) + "\n").encode())
                print(target.name)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
