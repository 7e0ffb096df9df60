from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.errors import BadRequest, Conflict, ModelNotFound, NotSupported, ParesError
from pares.store.models import ModelRecord
from pares.swarm.catalogue import builtin
from pares.swarm.names import clean_name, file_of_name, name_of_file, nearest, split_adapter
from pares.swarm.shelf import Shelf

CATALOGUE = builtin()

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}(/[a-z0-9]{1,5})?(:[a-z0-9]{1,5})?", fullmatch=True)


@given(name=names)
def test_a_name_is_kept_and_latest_is_dropped(name: str) -> None:
    bare = re.sub(":latest$", "", name, flags=re.IGNORECASE)
    assert clean_name(f"  {bare} ") == bare
    if ":" not in bare:
        assert clean_name(f"{bare}:LATEST") == bare
    assert split_adapter(f"{bare}+{bare}") == (bare, bare)


@given(text=st.text(max_size=200))
def test_any_text_is_a_clean_name_or_refused(text: str) -> None:
    try:
        name = clean_name(text)
    except BadRequest:
        return
    assert clean_name(name) == name or name.lower().endswith(":latest")
    assert set(name) <= set(string.ascii_letters + string.digits + "._-/:")


@given(text=st.text(max_size=300))
def test_any_file_name_gives_a_name_and_any_name_a_file_in_its_folder(text: str) -> None:
    name = name_of_file(text)
    assert clean_name(name)
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*\.gguf", file_of_name(name))


def test_names_come_from_files_as_people_write_them() -> None:
    assert name_of_file("Qwen3-0.6B-Q8_0.gguf") == "qwen3-0.6b-q8_0"
    assert name_of_file("My Model (final).GGUF") == "my-model-final"
    assert name_of_file("...") == "model"


def test_the_nearest_names_are_those_a_person_may_have_meant() -> None:
    known = ["smollm2-135m-instruct", "gemma-3-270m", "Qwen3-0.6B"]
    assert nearest("smolm2-135m-instruct", known) == ("smollm2-135m-instruct",)
    assert nearest("QWEN3", known)[0] == "Qwen3-0.6B"
    assert nearest("zzz", known) == ()


def _shelf(*records: ModelRecord) -> Shelf:
    return Shelf(records, CATALOGUE)


def _model(name: str, **fields: object) -> ModelRecord:
    return ModelRecord(name=name, kind="model", path=f"/m/{name}", sha256="0" * 64, **fields)  # type: ignore[arg-type]


ADAPTER = ModelRecord(name="pirate", kind="adapter", path="/m/pirate")


def test_a_catalogue_alias_finds_the_model_that_is_here() -> None:
    shelf = _shelf(_model("smollm2-135m-instruct"))
    assert shelf.resolve("SmolLM2:latest").name == "smollm2-135m-instruct"


def test_an_unknown_name_is_never_another_model() -> None:
    shelf = _shelf(_model("qwen3-0.6b"))
    with pytest.raises(ModelNotFound) as missing:
        shelf.resolve("qwen3-0.7b")
    assert "qwen3-0.6b" in missing.value.nearest
    with pytest.raises(ModelNotFound, match="pares pull smollm2"):
        shelf.resolve("smollm2")


def test_created_models_add_to_what_they_stand_on() -> None:
    shelf = _shelf(
        _model("base"),
        ADAPTER,
        ModelRecord(
            name="calm", kind="created", base="base", system="Be calm.", defaults={"temperature": 0.1, "seed": 1}
        ),
        ModelRecord(name="sea", kind="created", base="CALM", adapter="Pirate", defaults={"temperature": 0.9}),
        ModelRecord(name="gpt-4", kind="alias", base="sea"),
    )
    source = shelf.resolve("GPT-4")
    assert (source.name, source.path.name, source.adapter_name) == ("gpt-4", "base", "pirate")
    assert (source.system, source.defaults) == ("Be calm.", {"temperature": 0.9, "seed": 1})
    with pytest.raises(NotSupported, match="2 adapters"):
        shelf.resolve("gpt-4+pirate")
    assert shelf.resolve("calm+pirate").name == "calm+pirate"


def test_models_and_adapters_are_not_taken_for_each_other() -> None:
    shelf = _shelf(_model("base"), ADAPTER)
    assert str(shelf.resolve("base+pirate").adapter_path) == "/m/pirate"
    with pytest.raises(BadRequest, match="BASE\\+pirate"):
        shelf.resolve("pirate")
    with pytest.raises(BadRequest, match="not an adapter"):
        shelf.resolve("base+base")


def test_names_that_stand_on_themselves_are_refused() -> None:
    shelf = _shelf(ModelRecord(name="a", kind="alias", base="b"), ModelRecord(name="b", kind="alias", base="a"))
    with pytest.raises(Conflict, match="stands on itself"):
        shelf.resolve("a")


letters = st.sampled_from("abcde")
records = st.lists(
    st.one_of(
        letters.map(_model),
        st.builds(ModelRecord, name=letters, kind=st.just("adapter"), path=st.just("/a")),
        st.builds(ModelRecord, name=letters, kind=st.sampled_from(["alias", "created"]), base=letters, adapter=letters),
        st.builds(ModelRecord, name=letters, kind=st.sampled_from(["alias", "created"]), base=letters),
    ),
    max_size=5,
    unique_by=lambda record: record.name,
)


@given(records=records, name=letters, adapter=letters | st.none())
def test_any_list_resolves_to_a_model_file_or_says_why_not(
    records: list[ModelRecord], name: str, adapter: str | None
) -> None:
    shelf = _shelf(*records)
    kinds = {record.path: record.kind for record in records if record.path}
    try:
        source = shelf.resolve(f"{name}+{adapter}" if adapter else name)
    except ParesError:
        return
    assert kinds[str(source.path)] == "model"
    assert source.adapter_path is None or kinds[str(source.adapter_path)] == "adapter"
    gone = {record.name for record in shelf.with_dependents(shelf.find(source.path.name))}
    assert name in gone, "removing its file must take the name with it"
