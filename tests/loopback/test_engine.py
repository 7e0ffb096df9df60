"""The engine on real weights, real worker processes and llama.cpp itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from pares.errors import (
    BadRequest,
    BrokenModelFile,
    ContextOverflow,
    NotEnoughMemory,
    NotSupported,
    QueueFull,
    WorkerDied,
)
from pares.inference import machine
from pares.inference.engine import Engine, Options, Source
from pares.inference.generation import Sampling, TokenId, Usage
from pares.inference.local import LocalModel
from pares.inference.settings import Settings
from tiny import tiny_bert, tiny_gemma3, tiny_llama, tiny_lora, tiny_mamba

SETTINGS = Settings(threads=1)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with Engine(SETTINGS, probes=tmp_path / "probes") as engine:
        yield engine


GREEDY = Sampling()


async def say(
    model: LocalModel, prompt: str | Sequence[TokenId], sampling: Sampling = GREEDY, *, most: int = 32
) -> tuple[list[TokenId], Usage]:
    tokens = await model.tokenize(prompt, special=True, bos=True) if isinstance(prompt, str) else prompt
    steps = [step async for step in model.generate(tokens, sampling, max_tokens=most)]
    usage = steps[-1].usage
    assert usage is not None
    return [step.token for step in steps if step.token is not None], usage


def text(model: LocalModel, tokens: Sequence[int]) -> str:
    return b"".join(model.vocabulary.piece(token) for token in tokens).decode(errors="replace")


async def test_a_real_model_knows_the_capital_of_france(engine: Engine, smollm2: Path) -> None:
    async with engine.use(Source("smollm2", smollm2)) as model:
        tokens, usage = await say(model, "The capital of France is", most=4)
        assert text(model, tokens).startswith(" Paris")
        assert usage.prompt_tokens == 5
        assert usage.generated_tokens == 4
        assert model.facts.architecture == "llama"
        assert model.facts.context == model.facts.context_trained == 8192
        assert len(model.facts.fingerprint) == 64


async def test_a_second_turn_reuses_the_first(engine: Engine, smollm2: Path) -> None:
    async with engine.use(Source("smollm2", smollm2)) as model:
        prompt = await model.tokenize("One two three. " * 60, special=True, bos=True)
        answer, cold = await say(model, prompt, most=8)
        _, warm = await say(model, [*prompt, *answer, *prompt[:5]], most=2)
        assert cold.cached_tokens == 0
        assert warm.cached_tokens >= len(prompt)


async def test_closing_the_stream_frees_the_sequence(engine: Engine, smollm2: Path) -> None:
    async with engine.use(Source("smollm2", smollm2)) as model:
        tokens = await model.tokenize("Once upon a time", special=True, bos=True)
        async with aclosing(model.generate(tokens, Sampling(), max_tokens=4000)) as steps:
            await anext(steps)
            assert engine.loaded()[0].running == 1
        await say(model, tokens, most=1)
        assert engine.loaded()[0].running == 0


async def test_logprobs_bias_and_seed(engine: Engine, smollm2: Path) -> None:
    async with engine.use(Source("smollm2", smollm2)) as model:
        tokens = await model.tokenize("The capital of France is", special=True, bos=True)
        steps = [s async for s in model.generate(tokens, Sampling(logprobs=3), max_tokens=1)]
        paris = steps[0]
        assert paris.token is not None
        assert paris.logprob is not None
        assert paris.top[0] == (paris.token, paris.logprob)
        assert len(paris.top) == 3
        assert -5 < paris.logprob < 0
        banned, _ = await say(model, tokens, Sampling(logit_bias={paris.token: -100}), most=1)
        assert banned != [paris.token]
        warm = Sampling(temperature=1.0, top_k=50, top_p=0.95, min_p=0.01, repeat_penalty=1.1, dry_multiplier=0.8)
        draws = [await say(model, tokens, replace_seed(warm, seed), most=12) for seed in (1, 1, 2)]
        assert draws[0][0] == draws[1][0] != draws[2][0]


def replace_seed(sampling: Sampling, seed: int) -> Sampling:
    fields = {name: getattr(sampling, name) for name in sampling.__struct_fields__}
    return Sampling(**(fields | {"seed": seed}))


async def test_a_grammar_that_takes_too_long_ends_its_own_answer_only(engine: Engine, smollm2: Path) -> None:
    slow = Sampling(grammar=f"root ::= {'[a-z]* ' * 22}")
    async with engine.use(Source("smollm2", smollm2)) as model:
        alone, _ = await say(model, "Once upon a time", Sampling(), most=30)
        beside, refused = await asyncio.gather(
            say(model, "Once upon a time", Sampling(), most=30), say(model, "1 2 3", slow), return_exceptions=True
        )
        assert isinstance(refused, BadRequest)
        assert "takes more than" in refused.message
        assert not isinstance(beside, BaseException)
        assert len(beside[0]) == len(alone)


async def test_a_grammar_holds_from_the_start_or_from_its_trigger(engine: Engine, smollm2: Path) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
    async with engine.use(Source("smollm2", smollm2)) as model:
        grammar = await model.grammar_for(schema)
        tokens, _ = await say(model, "I live in", Sampling(temperature=1.5, seed=4, grammar=grammar), most=40)
        assert text(model, tokens).replace(" ", "").strip() in ('{"city":"Rome"}', '{"city":"Oslo"}')
        with pytest.raises(BadRequest, match="grammar"):
            await say(model, "Hello", Sampling(grammar="root ::= nothing-of-the-kind"))
        with pytest.raises(BadRequest, match="schema"):
            await model.grammar_for({"$ref": "#/nowhere"})
        triggered = Sampling(grammar='root ::= "Paris" " rocks"', grammar_trigger="Paris")
        tokens, _ = await say(model, "The capital of France is", triggered, most=30)
        assert text(model, tokens) == " Paris rocks"


async def test_context_overflow_and_an_empty_prompt_are_refused_with_numbers(engine: Engine, smollm2: Path) -> None:
    async with engine.use(Source("smollm2", smollm2), Options(context=512)) as model:
        with pytest.raises(ContextOverflow) as overflow:
            await say(model, [TokenId(5)] * 512)
        assert overflow.value.fields == {"needed": 513, "context": 512}
        with pytest.raises(BadRequest, match="empty"):
            await say(model, [])
        with pytest.raises(ContextOverflow):
            await model.tokenize("x" * 10_000_000, special=False, bos=False)
        tokens, usage = await say(model, [TokenId(5)] * 500, Sampling(ignore_end=True), most=4000)
        assert len(tokens) == 12
        assert usage.generated_tokens == 12


async def test_a_killed_worker_fails_its_requests_and_the_next_request_works(engine: Engine, smollm2: Path) -> None:
    source = Source("smollm2", smollm2)
    async with engine.use(source) as model:
        tokens = await model.tokenize("Once upon a time", special=True, bos=True)
        steps = model.generate(tokens, Sampling(), max_tokens=4000)
        await anext(steps)
        os.kill(engine.loaded()[0].pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="killed"):
            async for _ in steps:
                pass
    async with engine.use(source) as model:
        assert (await say(model, "The capital of France is", most=2))[0]


async def test_a_node_that_stops_while_a_dead_worker_is_replaced_leaves_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pares.inference.engine.RESTART_AFTER_S", 0.0)
    source, dead, replaced = Source("m", tiny_llama(tmp_path / "m.gguf")), asyncio.Event(), asyncio.Event()

    def changed(_: str) -> None:
        if dead.is_set() and any(status.state == "loading" for status in ours.loaded()):
            replaced.set()

    async with asyncio.timeout(20):
        async with Engine(Settings(threads=1), probes=tmp_path, on_change=changed) as ours:
            await ours.load(source)
            dead.set()
            os.kill(ours.loaded()[0].pid, signal.SIGKILL)
            await replaced.wait()
    assert not psutil.Process().children()


async def test_more_requests_than_the_queue_holds_are_refused(tmp_path: Path, smollm2: Path) -> None:
    async with Engine(Settings(threads=1, running=2, queue=4), probes=tmp_path) as engine:

        async def ask() -> int:
            async with engine.use(Source("smollm2", smollm2)) as model:
                try:
                    await say(model, [TokenId(5)] * 3, most=4)
                except QueueFull as full:
                    return full.retry_after_s
                return 0

        waits = await asyncio.gather(*(ask() for _ in range(40)))
        assert waits.count(0) == 6, "two running, four in the queue"
        assert min(wait for wait in waits if wait) >= 1


async def test_unused_models_are_unloaded_and_give_their_memory_back(tmp_path: Path, smollm2: Path) -> None:
    changed = asyncio.Event()
    async with Engine(SETTINGS, probes=tmp_path, on_change=lambda name: changed.set()) as engine:
        await engine.load(Source("smollm2", smollm2), Options(keep_alive_s=0.0))
        async with asyncio.timeout(10):
            while engine.loaded():
                changed.clear()
                await changed.wait()
        assert not [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]


async def test_what_does_not_fit_is_refused_with_the_sum_and_what_would(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_llama(tmp_path / "tiny.gguf", context=65536, layers=8)
    free = SETTINGS.memory_reserve_bytes + 300_000_000
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(2 * free, free))
    with pytest.raises(NotEnoughMemory) as refusal:
        await engine.load(Source("tiny", path), Options(context=65536))
    assert "KV cache for 65536 tokens" in refusal.value.message
    assert "would fit" in refusal.value.hint
    fitting = refusal.value.fields["context_that_fits"]
    assert isinstance(fitting, int)
    status = await engine.load(Source("tiny", path), Options(context=fitting))
    assert status.facts is not None
    assert status.facts.context == fitting


async def test_a_broken_file_never_reaches_llama_cpp(engine: Engine, tmp_path: Path, smollm2: Path) -> None:
    for name, content in {
        "empty": b"",
        "rubbish": b"GGUF" + os.urandom(4000),
        "truncated": smollm2.read_bytes()[:50_000_000],
        "text": b"hello" * 100,
    }.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(BrokenModelFile):
            await engine.load(Source(name, path))
    assert not engine.loaded()


async def test_an_adapter_is_chosen_per_request_and_leaves_others_alone(engine: Engine, tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base.gguf", seed=3)
    adapter = tiny_lora(tmp_path / "adapter.gguf", base, alpha=64)
    plain, adapted = Source("base", base), Source("base+loud", base, adapter, "loud")
    prompt = [TokenId(t) for t in range(10, 40)]
    async with engine.use(plain) as model, engine.use(adapted) as other:
        alone = (await say(model, prompt, most=24))[0]
        loud = (await say(other, prompt, most=24))[0]
        assert alone != loud
        both = await asyncio.gather(say(model, prompt, most=24), say(other, prompt, most=24))
        assert [tokens for tokens, _ in both] == [alone, loud]
        assert other.facts.adapter == "loud"
    assert len(engine.loaded()) == 1
    assert engine.loaded()[0].adapters == ("loud",)


async def test_an_adapter_of_another_model_is_refused(engine: Engine, tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base.gguf")
    stranger = tiny_lora(tmp_path / "stranger.gguf", tiny_llama(tmp_path / "other.gguf", embedding=512))
    async with engine.use(Source("base+x", base, stranger, "x")) as model:
        with pytest.raises(BrokenModelFile, match="not an adapter"):
            await say(model, [TokenId(5)])


async def test_embeddings_of_a_chat_model_and_of_an_encoder(engine: Engine, tmp_path: Path, smollm2: Path) -> None:
    async with engine.use(Source("smollm2", smollm2)) as model:
        texts = ["The cat sat on the mat.", "A cat is sitting on a mat.", "Interest rates rose again in May."]
        tokens = [await model.tokenize(t, special=False, bos=True) for t in texts]
        cat, same, money = await model.embed(tokens)
        assert len(cat) == model.facts.embedding_length
        assert abs(sum(x * x for x in cat) - 1) < 1e-4
        assert dot(cat, same) > dot(cat, money)
        assert (await model.embed(tokens[:1]))[0] == cat
    async with engine.use(Source("bert", tiny_bert(tmp_path / "bert.gguf"))) as model:
        tokens = [await model.tokenize("hello world", special=True, bos=True)]
        assert len((await model.embed(tokens))[0]) == model.facts.embedding_length
        with pytest.raises(NotSupported):
            await say(model, tokens[0])


async def test_an_answer_goes_on_beside_embeddings_and_those_can_be_given_up(engine: Engine, tmp_path: Path) -> None:
    async with engine.use(Source("tiny", tiny_llama(tmp_path / "tiny.gguf", context=4096))) as model:
        prompt = [TokenId(20)] * 8
        inputs = [[TokenId(n + 10)] * 600 for n in range(8)]  # two batches each
        async with aclosing(model.generate(prompt, Sampling(ignore_end=True), max_tokens=4000)) as steps:
            await anext(steps)
            embedding = asyncio.create_task(model.embed(inputs))
            meanwhile = 0
            while not embedding.done():
                await anext(steps)
                meanwhile += 1
            assert meanwhile >= 14
            assert len(embedding.result()) == 8
            given_up = asyncio.create_task(model.embed(inputs * 100))
            await anext(steps)
            given_up.cancel()
            async with asyncio.timeout(10):
                (short,) = await model.embed([[TokenId(10)] * 4])
            assert len(short) == model.facts.embedding_length


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("between", [0, 2], ids=["at once", "after others"])
@pytest.mark.parametrize(
    "make", [tiny_llama, tiny_gemma3, tiny_mamba], ids=["full attention", "sliding window", "recurrent"]
)
async def test_every_kind_of_memory_continues_a_conversation_correctly(
    engine: Engine, tmp_path: Path, make: type, between: int
) -> None:
    async with engine.use(Source("m", make(tmp_path / "m.gguf"))) as model:
        prompt = [TokenId(t % 200 + 10) for t in range(150)]
        answer, _ = await say(model, prompt, most=20)
        turn = [*prompt, *answer, *prompt[:7]]
        for other in range(between):
            await say(model, [TokenId(t % 90 + 40 + other) for t in range(80)], most=9)
        warm, usage = await say(model, turn, most=20)
        await engine.unload(tmp_path / "m.gguf")
    async with engine.use(Source("m", tmp_path / "m.gguf")) as model:
        cold, _ = await say(model, turn, most=20)
    assert warm == cold
    assert usage.cached_tokens >= len(prompt)


async def test_a_worker_that_is_stopped_while_it_loads_is_gone_at_once(engine: Engine, gemma: Path) -> None:
    loading = asyncio.create_task(engine.load(Source("gemma", gemma)))
    async with asyncio.timeout(10):
        while not (children := psutil.Process().children()):  # noqa: ASYNC110 (a process that begins has no event)
            await asyncio.sleep(0)
    loading.cancel()
    async with asyncio.timeout(1):
        await asyncio.wait([loading])
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert engine.loaded() == ()


async def test_the_figures_of_a_worker_begin_anew_with_the_next_one(engine: Engine, tmp_path: Path) -> None:
    source = Source("tiny", tiny_llama(tmp_path / "tiny.gguf"))
    async with engine.use(source) as model:
        await say(model, [TokenId(5)] * 3, Sampling(ignore_end=True), most=20)
    engine.loaded()
    status = await engine.load(source, Options(profile="exact"))
    assert status.tokens_per_s == 0
    assert engine.loaded()[0].tokens_per_s == 0


async def test_a_probe_that_cannot_be_kept_is_no_reason_not_to_load(tmp_path: Path) -> None:
    (tmp_path / "probes").write_text("a file where a folder should be")
    path = tiny_llama(tmp_path / "tiny.gguf")
    async with Engine(SETTINGS, probes=tmp_path / "probes") as engine:
        assert (await engine.load(Source("tiny", path))).state == "ready"


async def test_loading_shows_its_progress_and_ends_at_once_when_it_is_unwanted(tmp_path: Path, gemma: Path) -> None:
    moved = asyncio.Event()
    async with Engine(SETTINGS, probes=tmp_path, on_change=lambda name: moved.set()) as engine:
        loading = asyncio.create_task(engine.load(Source("gemma", gemma), Options(profile="exact")))
        async with asyncio.timeout(20):
            while not engine.loaded() or not engine.loaded()[0].progress:
                await moved.wait()
                moved.clear()
        assert engine.loaded()[0].state == "loading"
        assert engine.loaded()[0].pid
        await engine.unload(gemma)
        with pytest.raises(WorkerDied, match="unloaded"):
            await loading
        assert not engine.loaded()
