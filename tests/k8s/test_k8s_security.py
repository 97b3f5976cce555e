"""The manifests grant no privilege, hold no secret, and open no network path that is not listed."""

import re
from collections.abc import Iterator

import pytest

from tests.worlds.k8s_manifests import BUILDS, K8S, Manifest, Pod, build, cluster, of_kind, pod, pods
from tests.worlds.product import project_files

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
CONFIDENTIAL = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|_KEY")
LINK_LOCAL = "169.254.0.0/16"


def containers(name: str) -> Iterator[tuple[Pod, Manifest]]:
    """Every container of every pod, the autoscaler's beside the head's among them."""
    for each in pods(name):
        yield each, each.container
        if each.group == "head":
            yield each, cluster(name)["autoscalerOptions"]


@pytest.mark.parametrize("name", BUILDS)
def test_no_container_is_privileged_or_root_or_writes_to_its_image(name: str) -> None:
    for each, container in containers(name):
        assert container["securityContext"] == RESTRICTED
        assert each.spec["securityContext"]["runAsNonRoot"] is True
        assert each.spec["securityContext"]["runAsUser"] > 0
        assert each.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & each.spec.keys()
        assert not any("hostPath" in volume for volume in each.spec["volumes"])
        assert {mount["name"] for mount in container["volumeMounts"]} >= {"tmp", "home"}, (
            "Ray and the caches have to write somewhere"
        )


@pytest.mark.parametrize("name", BUILDS)
def test_the_namespace_admits_nothing_less(name: str) -> None:
    (namespace,) = of_kind(name, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {manifest["metadata"].get("namespace", "dynalign") for manifest in build(name)} == {
        namespace["metadata"]["name"]
    }


@pytest.mark.parametrize("name", BUILDS)
def test_every_container_says_what_it_needs_and_has_a_limit(name: str) -> None:
    for each, container in containers(name):
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][bound].keys(), f"{each.group} has no {bound}"


@pytest.mark.parametrize("name", BUILDS)
def test_ray_asks_for_a_token_from_a_secret_that_is_not_here(name: str) -> None:
    options = cluster(name)["authOptions"]
    assert options == {"mode": "token", "secretName": "ray-token"}
    assert of_kind(name, "Secret") == []


@pytest.mark.parametrize("name", BUILDS)
def test_confidential_variables_come_from_secrets(name: str) -> None:
    found = set()
    for _, container in containers(name):
        for variable in container.get("env", []):
            if CONFIDENTIAL.search(variable["name"]):
                assert variable["valueFrom"].keys() == {"secretKeyRef"}, variable["name"]
                found.add(variable["name"])
    assert found == {"HF_TOKEN"}
    whole = [
        (each.group, source)
        for each, container in containers(name)
        for source in container.get("envFrom", [])
    ]
    assert whole == [("head", {"secretRef": {"name": "object-storage", "optional": True}})], (
        "only the driver writes to a mirror"
    )
    arguments = cluster(name)["headGroupSpec"]["rayStartParams"]
    assert not any(CONFIDENTIAL.search(key.upper()) for key in arguments)


@pytest.mark.parametrize("name", BUILDS)
def test_only_the_autoscaler_has_a_token_of_the_kubernetes_api(name: str) -> None:
    assert all(
        account["automountServiceAccountToken"] is False for account in of_kind(name, "ServiceAccount")
    )
    accounts = {account["metadata"]["name"] for account in of_kind(name, "ServiceAccount")}
    projected = {
        volume["name"] for each in pods(name) for volume in each.spec["volumes"] if "projected" in volume
    }
    assert projected == {"kubernetes-api"}
    for each in pods(name):
        assert each.spec["automountServiceAccountToken"] is False
        assert each.spec["serviceAccountName"] in accounts
        assert "kubernetes-api" not in {mount["name"] for mount in each.container["volumeMounts"]}, (
            "code of the run could use it"
        )
    assert "kubernetes-api" in {mount["name"] for mount in cluster(name)["autoscalerOptions"]["volumeMounts"]}


def test_the_head_and_the_workers_have_different_accounts() -> None:
    accounts = {each.group: each.spec["serviceAccountName"] for each in pods("overlays/cluster")}
    assert accounts.pop("head") == "ray-head"
    assert set(accounts.values()) == {"ray-worker"}, "KubeRay binds the head's account to a role"


@pytest.mark.parametrize("name", BUILDS)
def test_whatever_is_not_named_is_denied(name: str) -> None:
    deny, *others = sorted(
        of_kind(name, "NetworkPolicy"), key=lambda policy: policy["metadata"]["name"] != "deny-all"
    )
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in others:
        for direction, ends in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, []):
                assert rule[ends], f"{policy['metadata']['name']}: a rule without {ends} is for everybody"
                assert rule["ports"], f"{policy['metadata']['name']}: a rule without ports is for all of them"
                assert all(named(peer) for peer in rule[ends]), (
                    f"{policy['metadata']['name']}: a peer without labels is everybody"
                )


def named(peer: Manifest) -> bool:
    """Whether labels select the peer, or it is an address range without the cloud's credentials."""
    if "ipBlock" in peer:
        return LINK_LOCAL in peer["ipBlock"].get("except", [])
    return any(peer.get(selector, {}).get("matchLabels") for selector in ("podSelector", "namespaceSelector"))


@pytest.mark.parametrize("name", BUILDS)
def test_only_the_head_reaches_beyond_the_cluster_and_only_over_https(name: str) -> None:
    beyond = [
        (policy["spec"]["podSelector"]["matchLabels"], {port["port"] for port in rule["ports"]})
        for policy in of_kind(name, "NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        if any("ipBlock" in peer for peer in rule["to"])
    ]
    assert beyond == [({"ray.io/node-type": "head"}, {443, 6443})]


@pytest.mark.parametrize("name", BUILDS)
def test_ray_opens_the_ports_that_its_policies_name(name: str) -> None:
    head = pod(name, "head")
    (jobs_api,) = (
        policy for policy in of_kind(name, "NetworkPolicy") if policy["metadata"]["name"] == "jobs-api"
    )
    (rule,) = jobs_api["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == {head.ports["dashboard"]}


@pytest.mark.parametrize("name", BUILDS)
def test_no_policy_admits_pods_of_every_namespace(name: str) -> None:
    peers = [
        peer
        for policy in of_kind(name, "NetworkPolicy")
        for direction, side in (("ingress", "from"), ("egress", "to"))
        for rule in policy["spec"].get(direction, [])
        for peer in rule[side]
        if "namespaceSelector" in peer
    ]
    assert peers
    assert all(peer["namespaceSelector"].get("matchLabels") for peer in peers)
    operators = [peer for peer in peers if "kuberay-operator" in str(peer)]
    assert {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in operators
    } == {"kuberay-system"}


def test_no_page_puts_a_secret_on_a_command_line() -> None:
    pages = {path: (K8S.parent / path).read_text() for path in project_files() if path.endswith(".md")}
    assert [path for path, text in pages.items() if "--from-literal" in text] == []


def test_no_manifest_holds_a_secret_or_a_moving_image_tag() -> None:
    texts = {path: (K8S.parent / path).read_text() for path in project_files() if path.startswith("k8s/")}
    assert texts
    assert [
        path
        for path, text in texts.items()
        if re.search(r"kind: Secret\b|secretGenerator|BEGIN [A-Z ]*PRIVATE KEY", text)
    ] == []
    assert [path for path, text in texts.items() if re.search(r":latest\b|newTag: [\"']?latest", text)] == []
