"""A GGUF file as a base model: dequantised once, known by its own digest, refused in a sentence where it is broken."""

import hashlib
import json
import pickle
import struct
import time
from pathlib import Path

import pytest
from traitroute.adapters import BaseModelError
from traitroute.adapters.adapter import Base
from traitroute.profiling.base_model import open_base_files, open_base_model
from traitroute.profiling.gguf_model import PROOF, GgufHeader

pytest.importorskip("gguf", reason="needs the profile extra: pip install 'traitroute[profile]'")
pytest.importorskip("transformers", reason="needs the profile extra: pip install 'traitroute[profile]'")

from .gguf_files import CONTEXT, write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAITROUTE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "Tiny-Q8_0.gguf")


def test_a_gguf_file_is_a_base_model_by_its_own_digest(file: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = open_base_model(str(file))
    assert base.name == str(file)
    assert base.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert base.context == CONTEXT
    # Servers call a model like its folder.
    assert base.path.name == "Tiny-Q8_0"
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    assert tokenizer.decode(tokenizer("hello")["input_ids"]) == "hello"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "user: hi<|end|>\n"
    model = AutoModelForCausalLM.from_pretrained(base.path)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_it_is_dequantised_once_and_nothing_is_left_beside(file: Path, cache: Path) -> None:
    first = open_base_model(str(file))
    written = (first.path / "model.safetensors").stat().st_mtime_ns
    assert open_base_model(str(file)) == first
    assert (first.path / "model.safetensors").stat().st_mtime_ns == written
    assert [p.name for p in first.path.parent.iterdir() if p.name[0] != "."] == ["Tiny-Q8_0"]
    assert not list(cache.rglob("*.draft")) and not list(cache.rglob("*.gguf"))


def test_what_a_killed_run_left_is_written_anew(file: Path) -> None:
    base = open_base_model(str(file))
    (base.path / PROOF).unlink()
    (base.path / "model.safetensors").write_bytes(b"half")
    (base.path.parent / f".{base.path.name}.draft").mkdir()
    again = open_base_model(str(file))
    assert again == base
    assert (base.path / "model.safetensors").stat().st_size > 1000


@pytest.mark.parametrize("tied", [True, False])
def test_weights_that_the_file_ties_stay_tied(tmp_path: Path, tied: bool) -> None:
    from safetensors import safe_open

    base = open_base_model(str(write_gguf(tmp_path / "model.gguf", tied=tied)))
    assert json.loads((base.path / "config.json").read_text())["tie_word_embeddings"] is tied
    with safe_open(base.path / "model.safetensors", framework="numpy") as stored:
        assert ("lm_head.weight" in stored.keys()) is not tied  # noqa: SIM118


def test_a_folder_with_one_gguf_file_is_that_model(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Tiny"
    folder.mkdir()
    file.rename(folder / file.name)
    base = open_base_model(str(folder))
    assert (base.name, base.path.name) == (str(folder), "Tiny")
    assert base.digest == open_base_model(str(folder / file.name)).digest
    write_gguf(folder / "b.gguf")
    with pytest.raises(BaseModelError, match=r"holds 2 GGUF files, Tiny-Q8_0.gguf and b.gguf for two: name the one"):
        open_base_model(str(folder))


def test_a_server_of_it_and_its_adapters_are_known_by_its_name_and_digest(file: Path) -> None:
    base = open_base_files(str(file), {"e" * 64: "other"})
    known = Base(base.name, base.digest)
    # As the registry knows it, without its folder; an adapter trained on it names the folder.
    assert known.local_folder() == base.path
    assert known.is_named(str(base.path)) and known.is_named("tiny-q8_0")
    assert not known.is_named("tiny")


def test_the_suffix_is_not_needed(file: Path) -> None:
    bare = file.rename(file.with_name("sha256-of-a-blob"))
    assert open_base_model(str(bare)).path.name == "sha256-of-a-blob"


def test_a_bare_name_is_also_looked_for_in_the_cache(file: Path, cache: Path) -> None:
    cache.mkdir()
    file.rename(cache / "kept.gguf")
    base = open_base_model("kept.gguf")
    assert (base.name, base.path.name) == ("kept.gguf", "kept")


def test_a_file_that_is_not_there_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"none\.gguf: there is no such file"):
        open_base_model(str(tmp_path / "none.gguf"))


def changed(file: Path, place: int, code: str, value: int) -> Path:
    data = bytearray(file.read_bytes())
    struct.pack_into(f"<{code}", data, place, value)
    file.write_bytes(data)
    return file


BROKEN = {
    "cut in its tensors": (lambda f: f.write_bytes(f.read_bytes()[:-50]), r"cut short: it has [\d,]+ bytes, and its"),
    "cut in its header": (lambda f: f.write_bytes(f.read_bytes()[:300]), "cut short: it ends within its header"),
    "empty": (lambda f: f.write_bytes(b""), "no GGUF file: it begins with nothing"),
    "wrong magic": (lambda f: changed(f, 0, "I", 0), r"no GGUF file: it begins with 00 00 00 00, not with 47 47 55 46"),
    "pickle": (lambda f: f.write_bytes(pickle.dumps({"a": 1})), "no GGUF file: it begins with 80 04"),
    "a version to come": (lambda f: changed(f, 4, "I", 9), "version 9; 2 and 3 can be read"),
    "big-endian": (lambda f: changed(f, 4, "I", 3 << 24), "version 50331648; 2 and 3 can be read, little-endian"),
    "a million tensors": (lambda f: changed(f, 8, "Q", 10**6), r"1,000,000 tensors and \d+ fields, more than"),
    "more fields than a file holds": (lambda f: changed(f, 16, "Q", 9_999), "cannot be read as GGUF|cut short"),
    "a name of a terabyte": (lambda f: changed(f, 24, "Q", 10**12), "a header of more than 64 MB"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_refused_in_a_sentence_and_at_once(file: Path, cache: Path, what: str) -> None:
    breaking, said = BROKEN[what]
    breaking(file)
    start = time.process_time()
    with pytest.raises(BaseModelError, match=said) as caught:
        open_base_model(str(file))
    assert time.process_time() - start < 2
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)
    assert not list(cache.rglob("config.json"))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"architecture": None}, r"states no architecture \(general.architecture\)"),
        ({"architecture": "wavenet"}, r"transformers [\d.]+ cannot read it \(.*wavenet"),
        ({"stated": {"general.type": "adapter"}}, "holds no model but, by its header, a part of the type 'adapter'"),
        ({"stated": {"split.count": 3}}, "is one of 3 files of a model: join them"),
        ({"without": "blk.0.ffn_up"}, r"lacks 1 of its model's weights, model.layers.0.mlp.up_proj.weight for one"),
    ],
)
def test_what_is_no_model_that_can_be_read_is_told(tmp_path: Path, cache: Path, made: dict, said: str) -> None:
    file = write_gguf(tmp_path / "model.gguf", **made)
    with pytest.raises(BaseModelError, match=said) as caught:
        open_base_model(str(file))
    assert "\n" not in str(caught.value)
    assert not list(cache.rglob("config.json")) and not list(cache.rglob("*.draft"))


def test_a_list_of_billions_is_not_read(tmp_path: Path) -> None:
    of_bytes = b"".join(
        [b"GGUF", struct.pack("<IQQ", 3, 0, 1), struct.pack("<Q", 1), b"a", struct.pack("<IIQ", 9, 0, 10**10)]
    )
    (file := tmp_path / "bomb.gguf").write_bytes(of_bytes)
    with pytest.raises(BaseModelError, match="lists of more than 3,000,000 elements"):
        GgufHeader.read(file)


def test_where_there_is_no_room_the_folder_to_change_is_named(file: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(
        BaseModelError, match=r"cannot be dequantised into .*name a folder with room by TRAITROUTE_CACHE"
    ):
        open_base_model(str(file))
