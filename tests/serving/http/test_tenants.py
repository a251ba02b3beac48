"""The file of tenants: what it may hold, and that a slip in it opens nothing and shuts nobody out."""

import asyncio
import logging
from pathlib import Path

import pytest
from traitroute.adapters import InputError
from traitroute.serving.http import tenants
from traitroute.serving.http.tenants import OPERATOR, Tenant, TenantsFile, digest_of, key_hash, new_key, read_tenants

HASH, OTHER = key_hash("one"), key_hash("two")
KITCHEN = f'[tenants.kitchen]\nkeys = ["{HASH}"]\nadapters = ["chef"]\ntags = ["cooking"]\n'


def test_a_tenant_may_use_what_is_named_and_what_bears_a_tag() -> None:
    kitchen = read_tenants(KITCHEN)["kitchen"]
    assert kitchen.may_use("chef") and kitchen.may_use("chef@2")
    assert kitchen.may_use("baker", ("cooking", "fr"))
    assert not any(
        kitchen.may_use(*asked) for asked in [("pilot",), ("pilot", ("flying",)), ("Chef",), ("chef:latest",)]
    )
    assert not kitchen.may_all


def test_a_star_is_every_adapter_and_an_empty_list_none() -> None:
    read = read_tenants('[tenants.a]\nadapters = ["*"]\n[tenants.b]\nadapters = []\n')
    assert read["a"].may_all and read["a"].may_use("anything")
    assert not read["b"].may_use("anything", ("any",))
    assert OPERATOR.may_all


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tenants.a", "not TOML"),
        ('[tenants.a]\nadapters = []\nadapters = ["*"]', "not TOML"),
        ("[tenants.a]\nadapters = []\n[tenants.a]\nadapters = []", "not TOML"),
        ('[tenant.a]\nadapters = ["x"]', "nothing else"),
        ("tenants = 3", "nothing else"),
        ("[tenants]\na = 3", "must be a table"),
        (f'[tenants.a]\nkeys = ["{HASH}"]', "says nothing of what it may use"),
        ('[tenants.a]\nadapters = ["x"]\nadapter = ["y"]', "tenants.a.adapter"),
        ('[tenants.a]\nadapters = "*"', "tenants.a.adapters"),
        ('[tenants.a]\nadapters = []\nkeys = ["secret"]', "tenants.a.keys.0"),
        ('[tenants.a]\nadapters = []\nname = "b"', "must be a table"),
        ('[tenants."a b"]\nadapters = []', "a b"),
        ('[tenants.a]\nadapters = []\nrate = "many/day"', "tenants.a.rate"),
        ("[tenants.a]\nadapters = []\nconcurrent = 0", "tenants.a.concurrent"),
        ("[tenants.a]\nadapters = []\nconcurrent = true", "tenants.a.concurrent"),
        ("[tenants.a]\nadapters = []\nholdback = nan", "tenants.a.holdback"),
        ("[tenants.a]\nadapters = []\nholdback = 0.9", "tenants.a.holdback"),
        (KITCHEN + f'[tenants.b]\nadapters = []\nkeys = ["{HASH}"]', "kitchen and b have the same key"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        read_tenants(text)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_new_key_is_random_and_only_its_hash_is_shown() -> None:
    key, another = new_key(), new_key()
    assert key != another and len(key) > 40
    assert key_hash(key) == f"sha256:{digest_of(key).hex()}"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tenants, "EVERY_S", 0.0)
    (tmp_path / "tenants.toml").write_text(KITCHEN)
    return tmp_path / "tenants.toml"


def whose(key: str, read: TenantsFile) -> Tenant | None:
    asyncio.run(read.refresh())
    return read.find(digest_of(key))


def test_a_change_is_followed(file: Path) -> None:
    read = TenantsFile(file)
    assert getattr(whose("one", read), "name", None) == "kitchen"
    file.write_text(KITCHEN.replace(HASH, OTHER))
    assert whose("one", read) is None
    assert getattr(whose("two", read), "name", None) == "kitchen"


@pytest.mark.parametrize("broken", ["[tenants.kitchen", KITCHEN + "[tenants.b]\n", "\x00", None, "x" * 2**21, "\udcff"])
def test_a_broken_file_leaves_in_force_what_was_read_and_is_said_once(
    file: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    read = TenantsFile(file)
    if broken is None:
        file.unlink()
    else:
        file.write_bytes(broken.encode(errors="surrogateescape"))
    with caplog.at_level(logging.WARNING, "traitroute"):
        for _ in range(3):
            kitchen = whose("one", read)
            assert kitchen is not None and not kitchen.may_all
    [said] = [record.message for record in caplog.records if "stays in force" in record.message]
    assert str(file) in said
    file.write_text(KITCHEN.replace(HASH, OTHER))
    assert whose("one", read) is None


def test_a_file_put_in_place_by_renaming_is_read(file: Path, tmp_path: Path) -> None:
    read = TenantsFile(file)
    (tmp_path / "next").write_text(KITCHEN.replace("chef", "cook"))
    (tmp_path / "next").replace(file)
    kitchen = whose("one", read)
    assert kitchen is not None and kitchen.may_use("cook") and not kitchen.may_use("chef")


def test_a_server_does_not_start_by_a_broken_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TenantsFile.from_environment() is None
    monkeypatch.setenv("TRAITROUTE_TENANTS", str(file))
    assert TenantsFile.from_environment() is not None
    file.write_text("[tenants")
    with pytest.raises(InputError, match="TRAITROUTE_TENANTS"):
        TenantsFile.from_environment()
    file.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        TenantsFile.from_environment()
