"""The Helm chart, rendered by helm: what Kubernetes would be given, and what is refused."""

import json
from typing import Any

import pytest

from .conftest import (
    CHART,
    ROOT,
    Document,
    Render,
    Run,
    assert_command_is_understood,
    assert_restricted,
    assert_secrets_are_by_reference,
    check,
    containers,
    of_kind,
    pods,
)

pytestmark = pytest.mark.slow

DIGEST = "sha256:" + "a" * 64
EVERYTHING = (
    "adminKey.secret=admin",
    "adminKey.allowedSources=hf://acme",
    "apiKey.key=other",
    "dashboard.enabled=true",
    f"image.server.digest={DIGEST}",
    "imagePullSecrets[0].name=pull",
    "hubToken.secret=hub",
    "modelCache.claim=models",
    "modelCache.offline=true",
    "server.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    ".nodeSelectorTerms[0].matchFields[0].key=a",
    "server.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    ".nodeSelectorTerms[0].matchFields[0].operator=Exists",
    "server.env[0].name=TRAITROUTE_HOLDBACK",
    "server.env[0].value=x",
    "server.nodeSelector.gpu=h100",
    "server.podAnnotations.a=b",
    "server.podLabels.c=d",
    "server.priorityClassName=high",
    "server.runtimeClassName=nvidia",
    "server.serviceAccountName=reader",
    "server.tolerations[0].key=gpu",
    "server.tolerations[0].operator=Exists",
    "server.topologySpreadConstraints[0].maxSkew=1",
    "server.topologySpreadConstraints[0].topologyKey=zone",
    "server.topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
    "server.vllmArgs[0]=--max-lora-rank=64",
    "service.annotations.e=f",
    "serviceMonitor.enabled=true",
    "serviceMonitor.labels.release=prometheus",
    "tenants.secret=tenants",
    "worker.data.claim=rows",
    "worker.env[0].name=A",
    "worker.env[0].value=x",
    "worker.nodeSelector.cpu=many",
    "worker.tolerations[0].operator=Exists",
)
LEAST = (
    "apiKey.secret=",
    "migration.enabled=false",
    "podDisruptionBudget.enabled=false",
    "worker.enabled=false",
)
WAYS = [pytest.param((), id="defaults"), pytest.param(EVERYTHING, id="everything"), pytest.param(LEAST, id="least")]


def of_server(found: list[Document]) -> Document:
    return of_kind(found, "Deployment", "-server")


def variables(container: Document) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_helm_finds_no_fault(helm: Run) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


@pytest.mark.parametrize("values", WAYS)
def test_kubernetes_knows_every_field(render: Render, values: tuple[str, ...]) -> None:
    for document in render(*values):
        check(document)


@pytest.mark.parametrize("values", WAYS)
def test_pods_have_no_rights_and_secrets_are_by_reference(render: Render, values: tuple[str, ...]) -> None:
    found = pods(render(*values))
    assert found
    for pod in found:
        assert_restricted(pod)
        assert_secrets_are_by_reference(pod)


@pytest.mark.parametrize("values", WAYS)
def test_the_containers_commands_are_those_of_traitroute(render: Render, values: tuple[str, ...]) -> None:
    commands = [c["args"] for pod in pods(render(*values)) for c in containers(pod) if "command" not in c]
    assert commands
    for arguments in commands:
        assert_command_is_understood(arguments)


def test_by_default_there_are_two_servers_and_one_may_be_taken_away(render: Render) -> None:
    found = render()
    server, budget = of_server(found), of_kind(found, "PodDisruptionBudget")
    assert server["spec"]["replicas"] == 2
    assert budget["spec"]["minAvailable"] == 1
    assert budget["spec"]["selector"] == server["spec"]["selector"]


def test_the_service_finds_the_servers_and_nothing_else(render: Render) -> None:
    found = render()
    wanted = of_kind(found, "Service")["spec"]["selector"].items()
    selected = [
        document["metadata"]["name"]
        for document in found
        if pods([document]) and wanted <= document["spec"].get("template", document)["metadata"]["labels"].items()
    ]
    assert selected == ["test-traitroute-server"]


def test_what_pods_are_found_by_stays_from_version_to_version(render: Render) -> None:
    for document in render():
        if document["kind"] == "Deployment":
            selector = document["spec"]["selector"]["matchLabels"]
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & selector.keys()


def test_the_registry_is_migrated_before_anything_else_is_there(render: Render) -> None:
    job = of_kind(render(*EVERYTHING), "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == ["registry", "migrate"]
    # Nothing that the chart makes, for it is made later.
    assert "serviceAccountName" not in pod
    assert all("emptyDir" in volume for volume in pod["volumes"])


def test_the_worker_measures_on_the_service(render: Render) -> None:
    found = render("service.port=80")
    [worker] = of_kind(found, "Deployment", "-worker")["spec"]["template"]["spec"]["containers"]
    service = of_kind(found, "Service")
    assert f"--server=http://{service['metadata']['name']}:80" in worker["args"]


def test_a_digest_counts_more_than_a_tag(render: Render) -> None:
    image = of_server(render(f"image.server.digest={DIGEST}"))["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"traitroute-server@{DIGEST}"


def test_servers_only_read_the_weights_unless_adapters_are_added_over_http(render: Render) -> None:
    def read_only(*values: str) -> bool:
        [container] = of_server(render(*values))["spec"]["template"]["spec"]["containers"]
        return next(m["readOnly"] for m in container["volumeMounts"] if m["mountPath"] == "/weights")

    assert read_only()
    assert not read_only("adminKey.secret=admin")


def test_servers_may_have_a_user_of_their_own_who_only_reads(render: Render) -> None:
    found = render("registry.reader.secret=readers")
    places = {
        document["metadata"]["name"]: variables(container)["TRAITROUTE_REGISTRY"]["secretKeyRef"]["name"]
        for document in found
        for pod in pods([document])
        for container in containers(pod)
        if document["kind"] in ("Deployment", "Job")
    }
    assert places == {
        "test-traitroute-server": "readers",
        "test-traitroute-worker": "traitroute-registry",
        "test-traitroute-migration": "traitroute-registry",
    }


def test_a_pod_has_time_for_the_requests_that_are_under_way(render: Render) -> None:
    pod = of_server(render("server.drainSeconds=300"))["spec"]["template"]["spec"]
    assert variables(pod["containers"][0])["TRAITROUTE_DRAIN_S"] == "300"
    assert pod["terminationGracePeriodSeconds"] >= 300 + 15 + 5


def test_a_slow_start_is_not_taken_for_a_failure(render: Render) -> None:
    pod = of_server(render("server.startSeconds=3600"))["spec"]["template"]["spec"]
    probe = pod["containers"][0]["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 3600
    assert probe["httpGet"] == {"path": "/health", "port": "http"}


def test_prometheus_reads_the_port_of_the_service_with_the_key(render: Render) -> None:
    found = render(*EVERYTHING)
    monitor, service = of_kind(found, "ServiceMonitor"), of_kind(found, "Service")
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["authorization"]["credentials"] == {"name": "traitroute-keys", "key": "other"}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_the_dashboard_is_that_of_the_documents(render: Render) -> None:
    data = of_kind(render(*EVERYTHING), "ConfigMap")["data"]["traitroute.json"]
    assert json.loads(data) == json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("server.replica=3", "replica"),
        ("model=", "model"),
        ("image.server.digest=latest", "digest"),
        ("apiKey.value=sesame", "value"),
        ("worker.share=20", "share"),
        ("server.vllmArgs[0]=max-lora-rank", "vllmArgs"),
    ],
)
def test_a_mistyped_value_is_refused_by_name(render: Render, value: str, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        render(value)


def test_servers_that_shall_write_are_not_given_a_user_who_cannot(render: Render) -> None:
    with pytest.raises(RuntimeError, match="set one of the two"):
        render("adminKey.secret=admin", "registry.reader.secret=readers")
