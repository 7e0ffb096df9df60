from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pares.api.ollama.inputs import keep_alive_s
from pares.api.options import OLLAMA_DEFAULTS, OPENAI_DEFAULTS, biases, settle, with_seed_of
from pares.errors import BadRequest
from pares.inference.generation import MAX_SEED, Sampling

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
words = st.sampled_from(["temperature", "top_k", "top_p", "seed", "num_predict", "num_ctx", "stop", "min_p", "zork"])


@given(st.lists(st.dictionaries(words, json_values, max_size=4), max_size=3))
def test_any_json_is_options_or_refused(layers: list[dict[str, object]]) -> None:
    try:
        options = settle(OPENAI_DEFAULTS, *layers)
    except BadRequest:
        return
    sampling = options.sampling
    assert 0 <= sampling.seed <= MAX_SEED
    assert isinstance(sampling.seed, int)
    assert isinstance(sampling.top_k, int)
    assert sampling.top_k >= 0
    assert 0 <= sampling.top_p <= 1
    assert options.max_tokens is None or options.max_tokens > 0
    assert options.context is None or options.context > 0


def test_later_layers_win_and_none_is_not_given() -> None:
    options = settle(OLLAMA_DEFAULTS, {"temperature": 0.1, "num_predict": 9}, {"temperature": None, "max_tokens": 5})
    assert options.sampling.temperature == 0.1
    assert options.sampling.top_k == 40
    assert options.max_tokens == 5


@pytest.mark.parametrize(("given_seed", "kept"), [(0, 0), (42, 42), (MAX_SEED, MAX_SEED), (2**63, 0)])
def test_a_seed_is_kept(given_seed: int, kept: int) -> None:
    assert settle({"seed": given_seed}).sampling.seed == kept


def test_without_a_seed_each_request_draws_its_own() -> None:
    assert settle({}).sampling.seed != settle({"seed": -1}).sampling.seed


def test_each_choice_has_the_next_seed() -> None:
    assert [with_seed_of(Sampling(seed=MAX_SEED), index).seed for index in range(3)] == [MAX_SEED, 0, 1]


@pytest.mark.parametrize("predict", [-1, -2, 0])
def test_ollamas_words_for_without_end(predict: int) -> None:
    assert settle({"num_predict": predict}).max_tokens is None


def test_a_modelfiles_text_counts_as_its_number() -> None:
    assert settle({"temperature": "0.25", "top_k": "7"}).sampling.temperature == 0.25


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"temperature": -1}, "temperature must be from 0"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"top_p": 1.5}, "top_p must be from 0 to 1"),
        ({"top_k": 1.5}, "whole number"),
        ({"top_k": True}, "number"),
        ({"stop": [1]}, "stop must be"),
        ({"stop": ["x"] * 100}, "64 strings"),
        ({"seed": 10**30}, "seed must be"),
    ],
)
def test_nonsense_is_refused_by_name(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint) as caught:
        settle(options)
    assert caught.value.param in options


def test_unknown_options_are_told_and_the_machines_own_pass() -> None:
    assert settle({"num_gpu": 99, "num_thread": 4, "mirostat": 2}).warnings == (
        "option 'mirostat' is not known here and was ignored",
    )


def test_biases_are_checked_against_the_vocabulary() -> None:
    assert biases({5: -100.0}, 10) == {5: -100.0}
    for wrong in ({10: 1.0}, {-1: 1.0}, {1: 101.0}):
        with pytest.raises(BadRequest):
            biases(wrong, 10)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (300, 300),
        ("5m", 300),
        ("1h30m", 5400),
        ("-1", -1),
        (-2, -2),
        ("0", 0),
        ("1.5s", 1.5),
        ("-2m", -120),
        ("10ms", 0.01),
    ],
)
def test_durations_as_ollama_takes_them(text: float | str, seconds: float) -> None:
    assert keep_alive_s(text) == pytest.approx(seconds)


@given(st.text(max_size=30))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with suppress(BadRequest):
        assert isinstance(keep_alive_s(text), float)
