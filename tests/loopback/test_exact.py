"""The exact profile: the same seed gives the same tokens, whatever else is computed and however it was cached."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from pares.inference.engine import Engine, Options, Source
from pares.inference.generation import Sampling, TokenId
from pares.inference.llama import quantize
from pares.inference.local import LocalModel
from pares.inference.settings import Settings
from tiny import tiny_llama

EXACT = Options(profile="exact", context=2048)
SAMPLING = Sampling(temperature=1.0, seed=11)


@pytest.fixture(scope="module")
def q4_k_m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of random weights, quantized by llama.cpp."""
    folder = tmp_path_factory.mktemp("q4_k_m")
    plain = tiny_llama(folder / "f32.gguf", layers=4, embedding=512, heads=8, ffn=1024, seed=9)
    quantize(plain, folder / "q4_k_m.gguf")
    return folder / "q4_k_m.gguf"


@pytest.fixture(params=["smollm2", "q4_k_m"])
def weights(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def a_prompt(model: LocalModel, length: int, start: int) -> list[TokenId]:
    return [TokenId((start + 37 * n) % (model.vocabulary.size - 300) + 200) for n in range(length)]


async def answer(model: LocalModel, prompt: Sequence[TokenId], sampling: Sampling = SAMPLING) -> list[TokenId]:
    return [s.token async for s in model.generate(prompt, sampling, max_tokens=40) if s.token is not None]


@pytest.mark.timeout(180)
async def test_the_same_bytes_alone_beside_others_cached_restarted_and_on_more_threads(
    weights: Path, tmp_path: Path
) -> None:
    source = Source("m", weights)
    async with Engine(Settings(threads=1), probes=tmp_path) as engine:
        async with engine.use(source, EXACT) as model:
            prompt = a_prompt(model, 555, 0)  # beyond 512 cells threads may share out one row
            alone = await answer(model, prompt)
            assert model.facts.exact == ""
            assert model.facts.exact_block >= 8
            fingerprint = model.facts.fingerprint
            assert await answer(model, prompt) == alone, "with its prompt in the cache"
            others = [a_prompt(model, 60 + 31 * n, 5000 + n) for n in range(7)]
            beside, *_ = await asyncio.gather(answer(model, prompt), *(answer(model, other) for other in others))
            assert beside == alone, "beside seven others"
            turn = [*prompt, *alone, *prompt[:9]]
            warm = await answer(model, turn)
        await engine.unload(weights)
        async with engine.use(source, EXACT) as model:
            assert await answer(model, turn) == warm, "a second turn, cold and after a restart"
            assert await answer(model, prompt) == alone, "after a restart"
    async with Engine(Settings(threads=2), probes=tmp_path / "two") as engine, engine.use(source, EXACT) as model:
        assert await answer(model, prompt) == alone, "on two threads"
        assert model.facts.fingerprint == fingerprint


async def test_the_same_text_after_other_conversations_came_and_went(q4_k_m: Path, tmp_path: Path) -> None:
    """Cells are freed and filled again in another order: the order in which attention adds up must not follow."""
    settings = Settings(threads=1, running=3)
    options = Options(context=512, profile="exact")
    async with Engine(settings, probes=tmp_path) as engine, engine.use(Source("m", q4_k_m), options) as model:
        prompts = [a_prompt(model, 400 - 37 * (n * 5 % 11), 1000 * n) for n in range(11)]
        alone = [await answer(model, prompt) for prompt in prompts]
        for _ in range(3):
            assert await asyncio.gather(*(answer(model, prompt) for prompt in prompts)) == alone
