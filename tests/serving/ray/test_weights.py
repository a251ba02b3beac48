"""What Ray's replicas are given of the weight store, and what `serve run` is told of arguments that are none."""

import asyncio
import pickle
from functools import partial
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException
from traitroute.adapters import InputError, WeightStore
from traitroute.serving.ray import StoredWeights, build_routed_app

from ..gateway.conftest import make_adapter


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(tmp_path / "weights")


def test_weights_are_found_by_the_digest_in_the_name(store: WeightStore, tmp_path: Path) -> None:
    digest = store.add(make_adapter(tmp_path / "cook", 0.1)).digest
    # Ray makes one in each replica, with settings of its own.
    weights = pickle.loads(pickle.dumps(partial(StoredWeights, store.root)))(download_timeout_s=30, max_tries=1)  # noqa: S301
    found = asyncio.run(weights.load_model_from_config(f"tiny:cook@{digest}", None))
    assert (found.model_id, Path(found.local_path)) == (f"tiny:cook@{digest}", store.path(digest))


@pytest.mark.parametrize(
    "name", ["tiny:cook", "tiny", "tiny:cook@{digest}/..", "tiny:../{digest}", "tiny:cook@{other}"]
)
def test_other_names_are_no_model(store: WeightStore, tmp_path: Path, name: str) -> None:
    digest = store.add(make_adapter(tmp_path / "cook", 0.1)).digest
    asked = name.format(digest=digest, other="0" * 64)
    with pytest.raises(HTTPException) as refused:
        asyncio.run(StoredWeights(store.root).load_model_from_config(asked, None))
    assert refused.value.status_code == 404


def test_damaged_weights_are_not_given(store: WeightStore, tmp_path: Path) -> None:
    digest = store.add(make_adapter(tmp_path / "cook", 0.1)).digest
    file = store.path(digest) / "adapter_model.safetensors"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(HTTPException, match="damaged or missing"):
        asyncio.run(StoredWeights(store.root).load_model_from_config(f"tiny:cook@{digest}", None))


def test_a_registry_must_be_named() -> None:
    with pytest.raises(InputError, match="registry is missing"):
        build_routed_app({"llm_configs": []})
