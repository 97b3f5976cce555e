"""Kubernetes, KubeRay and the Prometheus operator accept every object of every overlay, and drop no field."""

from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.worlds.k8s_manifests import BUILDS, Manifest, build
from tests.worlds.product import ROOT

CRDS = ROOT.parent / "shared" / "crds"

OLDEST = "1.28"
"""The oldest version of Kubernetes that the manifests are for."""

BUILT_IN = ("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1")


@cache
def schemas() -> dict[tuple[str, str], Manifest]:
    """(apiVersion, kind) → closed schema of each custom kind. Skips the test where there are none."""
    files = sorted(CRDS.glob("*.yaml"))
    if not files:
        pytest.skip(f"the schemas of KubeRay and of the Prometheus operator are not in {CRDS}")
    definitions = [yaml.load(file.read_text(), Loader=yaml.CSafeLoader)["spec"] for file in files]
    return {
        (f"{definition['group']}/{version['name']}", definition["names"]["kind"]): closed(
            version["schema"]["openAPIV3Schema"]
        )
        for definition in definitions
        for version in definition["versions"]
    }


def closed(schema: Any) -> Any:
    """A structural schema as a JSON Schema that refuses unknown fields, which the API server drops
    silently."""
    if not isinstance(schema, dict):
        return schema
    made = {
        key: value
        for key, value in schema.items()
        if not key.startswith("x-kubernetes-") and key not in ("default", "format")
    }
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
        made.pop("anyOf", None)
    if "properties" in schema:
        made["properties"] = {name: closed(inner) for name, inner in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in schema:
            made[key] = closed(schema[key])
    return made


def validate(manifest: Manifest) -> None:
    kind = (manifest["apiVersion"], manifest["kind"])
    if manifest["apiVersion"] in BUILT_IN:
        for version in (OLDEST, kubernetes_validate.latest_version()):
            kubernetes_validate.validate(manifest, version, strict=True)
    else:
        schema = schemas()[kind]
        schema["properties"]["metadata"] = {"type": "object", "required": ["name", "namespace"]}
        jsonschema.Draft202012Validator(schema).validate(manifest)


@pytest.mark.parametrize("name", BUILDS)
def test_every_built_in_object_is_valid(name: str) -> None:
    built_in = [manifest for manifest in build(name) if manifest["apiVersion"] in BUILT_IN]
    expected = {
        "Namespace",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "ServiceAccount",
    }
    assert expected <= {each["kind"] for each in built_in}
    for manifest in built_in:
        validate(manifest)


@pytest.mark.parametrize("name", BUILDS)
def test_every_custom_object_is_valid(name: str) -> None:
    custom = [manifest for manifest in build(name) if manifest["apiVersion"] not in BUILT_IN]
    assert {"RayJob" if name.startswith("overlays/") else "RayCluster", "PodMonitor"} <= {
        each["kind"] for each in custom
    }
    for manifest in custom:
        validate(manifest)


def test_a_misspelt_field_and_a_wrong_type_are_refused() -> None:
    (job,) = (manifest for manifest in build("overlays/cluster") if manifest["kind"] == "RayJob")
    misspelt = job | {"spec": job["spec"] | {"backofLimit": 3}}
    with pytest.raises(jsonschema.ValidationError, match="backofLimit"):
        validate(misspelt)
    with pytest.raises(jsonschema.ValidationError, match="'three'"):
        validate(job | {"spec": job["spec"] | {"backoffLimit": "three"}})
    (policy, *_) = (manifest for manifest in build("overlays/cluster") if manifest["kind"] == "NetworkPolicy")
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(policy | {"spec": policy["spec"] | {"policyType": []}})
