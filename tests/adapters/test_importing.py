"""How adapters are imported, and that nothing is kept of what is refused."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sqlalchemy import create_engine, text
from traitroute.adapters import (
    Adapter,
    AdapterState,
    AllowedSources,
    Base,
    ConflictError,
    Importer,
    InputError,
    Registry,
    RegistryError,
    SourceError,
    WeightsError,
)

MakeAdapter = Callable[..., Path]
BASE = Base("tiny-llama", "f" * 64)
STEM = "base_model.model.model.layers.{layer}.self_attn.{module}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Registry]:
    with Registry.create(tmp_path / "registry.db") as registry:
        yield registry


@pytest.fixture
def importer(store: Registry) -> Importer:
    return Importer(store, AllowedSources(typed=True), base=BASE)


def everything(store: Registry) -> tuple[int, list[Adapter], list[Adapter], set[str]]:
    """Everything that an adapter could leave behind."""
    root = store.weights.root
    kept = {str(path.relative_to(root)) for path in root.rglob("*")}
    return store.revision(), store.adapters(), store.replacements(), kept


def reshape(folder: Path, *, width: int = 8, layer: int = 0, module: str = "q_proj") -> Path:
    """Let the adapter change one layer, which takes `width` features to 8."""
    stem = STEM.format(layer=layer, module=module)
    halves = {
        f"{stem}.lora_A.weight": np.full((2, width), 0.1, np.float32),
        f"{stem}.lora_B.weight": np.full((8, 2), 0.1, np.float32),
    }
    save_file(halves, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"target_modules": [module]}))
    return folder


def base_folder(folder: Path) -> Path:
    """A base model of one layer whose projections take 8 features to 8."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    names = [f"model.layers.0.self_attn.{m}.weight" for m in ("q_proj", "v_proj")]
    save_file({n: np.zeros((8, 8), np.float32) for n in names}, folder / "model.safetensors")
    return folder


def test_an_added_adapter_is_pending_with_its_provenance(
    importer: Importer, store: Registry, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "training_args.bin").write_bytes(b"cos\nsystem\n")
    result = importer.add("polite", str(folder), tags=["tone"], source_task="greetings")
    adapter = store.adapter("polite")
    assert result.adapter == adapter
    assert not result.known
    assert (adapter.state, adapter.rank, adapter.tags) == (AdapterState.PENDING, 2, ("tone",))
    assert (adapter.uri, adapter.licence, adapter.source_task) == (str(folder), "mit", "greetings")
    kept = store.weights.path(adapter.weights_digest)
    assert {f.name for f in kept.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_the_second_add_of_the_same_adapter_changes_nothing(
    importer: Importer, store: Registry, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter()
    first = importer.add("polite", str(folder)).adapter
    before = everything(store)
    again = importer.add("polite", str(folder), tags=["other"])
    assert again.known
    assert again.adapter == first
    assert everything(store) == before


def test_of_many_adds_at_once_one_is_the_first(place: str, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = str(make_adapter())
    with Registry.create(place, weights=tmp_path / "weights") as store:
        importer = Importer(store, AllowedSources(typed=True), base=BASE)
        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(lambda _: importer.add("polite", folder), range(8)))
        assert [result.adapter for result in results] == [store.adapter("polite")] * 8
    assert sorted(result.known for result in results) == [False, *[True] * 7]


def refused(store: Registry, error: type[InputError], why: str, act: Callable[[], Any]) -> InputError:
    before = everything(store)
    with pytest.raises(error, match=why) as refusal:
        act()
    assert everything(store) == before
    assert ".adding-" not in str(refusal.value)
    return refusal.value


@pytest.mark.parametrize("name", ["../polite", "a/b", "", "auto", "Base", "x" * 65, "a..b"])
def test_a_name_that_cannot_be_one_is_refused(
    importer: Importer, store: Registry, make_adapter: MakeAdapter, name: str
) -> None:
    folder = str(make_adapter())
    refused(store, InputError, "cannot be a name|is reserved", lambda: importer.add(name, folder))


@pytest.mark.parametrize("name", ["tiny-llama", "Tiny-Llama"])
def test_the_base_models_name_is_refused_before_anything_is_read(
    importer: Importer, store: Registry, name: str
) -> None:
    refused(store, InputError, "name of the base model", lambda: importer.add(name, "/nowhere"))


def test_the_name_of_the_base_models_folder_is_refused(store: Registry, tmp_path: Path) -> None:
    base = Base("acme/tiny", "f" * 64, base_folder(tmp_path / "served-as"))
    importer = Importer(store, AllowedSources(typed=True), base=base)
    refused(store, InputError, "name of the base", lambda: importer.add("served-as", "/nowhere"))
    refused(store, InputError, "name of the base", lambda: importer.add("tiny", "/nowhere"))


def test_no_weights_come_under_a_name_that_an_older_registry_shares_with_its_base(
    importer: Importer, store: Registry, make_adapter: MakeAdapter
) -> None:
    importer.add("polite", str(make_adapter()))
    engine = create_engine(f"sqlite:///{store.path}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE adapters SET base_model = 'acme/polite'"))
    engine.dispose()
    other = str(make_adapter("other", fill=0.25))
    refused(store, InputError, "name of the base", lambda: importer.replace("polite", other))


def test_a_taken_name_is_refused(importer: Importer, store: Registry, make_adapter: MakeAdapter) -> None:
    importer.add("polite", str(make_adapter()))
    other = str(make_adapter("other", fill=0.25))
    refused(store, ConflictError, "there already", lambda: importer.add("polite", other))


def test_the_same_weights_under_another_name_are_refused(
    importer: Importer, store: Registry, make_adapter: MakeAdapter
) -> None:
    folder = str(make_adapter())
    importer.add("polite", folder)
    refused(store, ConflictError, "already, as 'polite'", lambda: importer.add("kind", folder))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"use_dora": True}, "a DoRA, whose magnitudes vLLM cannot apply"),
        ({"modules_to_save": ["lm_head"]}, "replaces whole layers"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"bias": "all"}, "changes biases"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base model"),
        ({"base_model_name_or_path": "acme/other-llama"}, "trained for 'acme/other-llama'"),
        ({"r": 3}, "has rank 2"),
        ({"peft_type": "VERA"}, "'VERA'"),
    ],
)
def test_an_adapter_that_no_server_could_load_is_refused(
    importer: Importer, store: Registry, make_adapter: MakeAdapter, changes: dict[str, Any], why: str
) -> None:
    folder = make_adapter(**changes)
    error = refused(store, WeightsError, why, lambda: importer.add("polite", str(folder)))
    assert str(folder) in str(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"target_modules": ["q_proj", "v_proj", "!", "--host=0.0.0.0"]},
            "'!' is no module's name",
        ),
        ({"target_modules": r".*\.q_proj"}, "does not match model.layers.0.self_attn.v_proj"),
        ({"target_modules": "(([a-z0-9_.])*)*!"}, "takes more than 1 s"),
        ({"r": 2**70}, "r: Input should be less than or equal to 512"),
        ({"r": 4096, "rank_pattern": {"zzz": 8}}, "r: Input should be less than or equal to 512"),
        ({"base_model_name_or_path": "\x1b[2J"}, r"trained for '\\x1b\[2J'"),
    ],
)
def test_untrusted_settings_are_never_run_passed_on_or_shown(
    importer: Importer, store: Registry, make_adapter: MakeAdapter, changes: dict[str, Any], why: str
) -> None:
    folder = make_adapter(**changes)
    error = refused(store, WeightsError, why, lambda: importer.add("polite", str(folder)))
    assert str(error).isprintable()


def test_a_pattern_that_means_the_layers_is_taken(
    importer: Importer, store: Registry, make_adapter: MakeAdapter
) -> None:
    pattern = r"model\.layers\.\d+\.self_attn\.(q_proj|v_proj)"
    adapter = importer.add("polite", str(make_adapter(target_modules=pattern))).adapter
    assert adapter.target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "language_model."])
def test_keys_that_servers_would_pass_over_are_refused(
    importer: Importer, store: Registry, make_adapter: MakeAdapter, prefix: str
) -> None:
    folder = make_adapter()
    weights = load_file(folder / "adapter_model.safetensors")
    renamed = {n.replace("base_model.model.", f"base_model.model.{prefix}"): w for n, w in weights.items()}
    save_file(renamed, folder / "adapter_model.safetensors")
    refused(store, WeightsError, "no such layer is known", lambda: importer.add("polite", str(folder)))


def test_what_was_checked_is_moved_into_the_store(
    importer: Importer, store: Registry, make_adapter: MakeAdapter
) -> None:
    kept = store.weights.path(importer.add("polite", str(make_adapter())).adapter.weights_digest)
    assert {f.stat().st_mode & 0o777 for f in kept.iterdir()} == {0o444}
    assert [f.name for f in store.weights.root.iterdir()] == [kept.name]


def test_ia3_is_refused(importer: Importer, store: Registry, make_adapter: MakeAdapter) -> None:
    folder = make_adapter(peft_type="IA3", target_modules=["k_proj"])
    refused(store, WeightsError, "LoRA is served alone", lambda: importer.add("p", str(folder)))


def test_pickles_alone_and_truncated_weights_are_refused(
    importer: Importer, store: Registry, make_adapter: MakeAdapter
) -> None:
    pickled, cut = make_adapter("pickled"), make_adapter("cut")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    weights = (cut / "adapter_model.safetensors").read_bytes()
    (cut / "adapter_model.safetensors").write_bytes(weights[:-8])
    refused(store, WeightsError, "only pickle", lambda: importer.add("p", str(pickled)))
    refused(store, WeightsError, "truncated", lambda: importer.add("p", str(cut)))


def test_places_that_are_not_allowed_are_not_read(store: Registry, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed/link").symlink_to(make_adapter())
    importer = Importer(store, AllowedSources.of([str(tmp_path / "allowed")]), base=BASE)
    for uri in (str(tmp_path / "allowed/link"), str(tmp_path / "adapter"), "acme/polite"):
        refused(store, SourceError, "may not come from", lambda uri=uri: importer.add("p", uri))


def test_the_same_base_under_another_name_is_taken_on_the_callers_word(
    importer: Importer, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter(base_model_name_or_path="/moved/llama")
    assert importer.add("polite", str(folder), same_base=True).adapter.base_model == "tiny-llama"


@pytest.mark.parametrize(
    "called",
    ["/old/place/Tiny-Llama/", "acme/tiny-llama", "/hub/models--acme--tiny-llama/snapshots/1"],
)
def test_a_base_is_known_by_the_last_part_of_its_name(
    importer: Importer, make_adapter: MakeAdapter, called: str
) -> None:
    folder = make_adapter(base_model_name_or_path=called)
    assert importer.add("polite", str(folder)).adapter.name == "polite"


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ({"width": 16}, "takes 16 features to 8, in this base model 8 to 8"),
        ({"layer": 7}, "layers.7.self_attn.q_proj, which this base model lacks"),
    ],
)
def test_shapes_are_those_of_the_base_models_files(
    store: Registry,
    make_adapter: MakeAdapter,
    tmp_path: Path,
    shape: dict[str, Any],
    why: str,
) -> None:
    base = Base("tiny-llama", "f" * 64, base_folder(tmp_path / "tiny-llama"))
    importer = Importer(store, AllowedSources(typed=True), base=base)
    folder = str(reshape(make_adapter(), **shape))
    refused(store, WeightsError, why, lambda: importer.add("polite", folder))
    assert importer.add("polite", str(make_adapter("sound"))).adapter.rank == 2


def test_without_the_base_models_files_measured_adapters_show_the_shapes(
    importer: Importer, store: Registry, make_adapter: MakeAdapter
) -> None:
    importer.add("sound", str(make_adapter("sound")))
    poisoned = str(reshape(make_adapter("poisoned"), width=16))
    # A pending adapter may itself be wrong, so it shows nothing.
    assert importer.add("first", poisoned).adapter.state is AdapterState.PENDING
    store.remove_adapter("first")
    store.set_state("sound", AdapterState.READY)
    other = str(reshape(make_adapter("other"), width=24))
    refused(store, WeightsError, "takes 24 features", lambda: importer.add("polite", other))


def test_a_quantised_base_shows_no_shapes(store: Registry, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = base_folder(tmp_path / "tiny-llama")
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"bits": 4}}))
    importer = Importer(store, AllowedSources(typed=True), base=Base("tiny-llama", "f" * 64, folder))
    assert importer.add("wide", str(reshape(make_adapter(), width=16))).adapter.rank == 2


def test_half_a_pair_of_matrices_is_refused(importer: Importer, store: Registry, make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    half = {f"{STEM.format(layer=0, module='q_proj')}.lora_A.weight": np.ones((2, 8), np.float32)}
    save_file(half, folder / "adapter_model.safetensors")
    refused(store, WeightsError, "has lora_A alone", lambda: importer.add("p", str(folder)))


def test_the_registrys_adapters_say_which_base_model(
    store: Registry, importer: Importer, make_adapter: MakeAdapter
) -> None:
    plain = Importer(store, AllowedSources(typed=True))
    other = Importer(store, AllowedSources(typed=True), base=Base("other", "e" * 64))
    folder, second = str(make_adapter()), str(make_adapter("second", fill=0.25))
    refused(store, RegistryError, "which base model", lambda: plain.add("p", folder))
    importer.add("polite", folder)
    assert plain.add("kind", second).adapter.base_digest == BASE.digest
    refused(store, RegistryError, "not for other", lambda: other.add("p", folder))


def test_a_replacement_waits_and_the_old_weights_stay(
    importer: Importer, store: Registry, make_adapter: MakeAdapter
) -> None:
    old = importer.add("polite", str(make_adapter()), tags=["tone"], licence="mit").adapter
    new = importer.replace("polite", str(make_adapter("new", fill=0.25))).adapter
    assert store.adapter("polite") == old
    assert store.replacement("polite") == new
    assert (new.version, new.tags, new.licence) == (2, ("tone",), "mit")
    assert store.weights.path(new.weights_digest).is_dir()
    assert importer.replace("polite", new.uri or "").known


def test_replacements_that_are_none_are_refused(importer: Importer, store: Registry, make_adapter: MakeAdapter) -> None:
    first, second = str(make_adapter("a")), str(make_adapter("b", fill=0.25))
    importer.add("polite", first)
    importer.add("kind", second)
    replace = importer.replace
    refused(store, RegistryError, "has these weights already", lambda: replace("polite", first))
    refused(store, ConflictError, "already, as 'kind'", lambda: replace("polite", second))
    refused(store, RegistryError, "no adapter named 'nobody'", lambda: replace("nobody", first))
    importer.replace("polite", str(make_adapter("c", fill=0.75)))
    waiting = str(make_adapter("d", fill=0.1))
    refused(store, ConflictError, "not measured yet", lambda: replace("polite", waiting))
