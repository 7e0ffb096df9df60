"""A model that says what it is told to, and templates as they are found in model files, for the tests of `chat`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from pares.errors import ContextOverflow
from pares.inference.generation import FinishReason, ModelFacts, Sampling, Step, TokenId, Usage, Vocabulary

# The beginning of a vocabulary: these have a token each; all other text is one token per byte.
CONTROL = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]"),
    *("<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|call|>", "<|return|>", "<|constrain|>"),
    *("<think>", "</think>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<tool_call>", "</tool_call>"),
)
END = ("</s>", "<|im_end|>")


def vocabulary(control: Sequence[str] = CONTROL, *, add_bos: bool = True) -> Vocabulary:
    """256 bytes, then the control tokens."""
    pieces = [bytes([value]) for value in range(256)] + [text.encode() for text in control]
    flags = [Vocabulary.CONTROL | (Vocabulary.END if text in END else 0) for text in control]
    attributes = bytes([0] * 256 + flags)
    bos = 256 + control.index("<s>") if "<s>" in control else -1
    eos = 256 + control.index("</s>") if "</s>" in control else -1
    return Vocabulary.of(pieces, attributes, bos=bos, eos=eos, add_bos=add_bos)


class ScriptedModel:
    """Generates the tokens it was given, whatever the prompt, and remembers what it was asked."""

    def __init__(
        self,
        answer: str | Sequence[bytes] = "",
        *,
        template: str = "",
        control: Sequence[str] = CONTROL,
        context: int = 4096,
        finish: FinishReason = "end",
        templates: Mapping[str, str] | None = None,
    ) -> None:
        self.vocabulary = vocabulary(control)
        self._control = {text: TokenId(256 + index) for index, text in enumerate(control)}
        self.facts = ModelFacts(
            name="scripted",
            architecture="script",
            context=context,
            context_trained=context,
            layers=1,
            embedding_length=1,
            parameters=1,
            file_bytes=1,
            templates=templates or ({"default": template} if template else {}),
        )
        self.answer = answer
        self.finish: FinishReason = finish
        self.prompt: list[TokenId] = []
        self.sampling = Sampling()
        self.max_tokens = 0
        self.schemas: list[Mapping[str, object]] = []
        self.running = 0

    async def tokenize(self, text: str, *, special: bool, bos: bool) -> list[TokenId]:
        """One token per byte, and one per control token where those are parsed."""
        tokens = [TokenId(self.vocabulary.bos)] if bos and self.vocabulary.add_bos else []
        while text:
            marker = next((name for name in self._control if special and text.startswith(name)), None)
            if marker:
                tokens.append(self._control[marker])
            else:
                tokens += [TokenId(byte) for byte in text[0].encode()]
            text = text[len(marker or "x") :]
        return tokens

    def text(self, tokens: Sequence[TokenId]) -> str:
        """Tokens as text, markers included."""
        return b"".join(map(self.vocabulary.piece, tokens)).decode()

    async def grammar_for(self, schema: Mapping[str, object]) -> str:
        """Remember the schema."""
        self.schemas.append(schema)
        return "root ::= [a-z]"

    async def embed(self, inputs: Sequence[Sequence[TokenId]]) -> list[list[float]]:
        """A script has no meaning."""
        return [[1.0] for _ in inputs]

    async def generate(
        self, prompt: Sequence[TokenId], sampling: Sampling, *, max_tokens: int
    ) -> AsyncGenerator[Step, None]:
        """Say the script."""
        self.prompt, self.sampling, self.max_tokens = list(prompt), sampling, max_tokens
        if len(prompt) >= self.facts.context:
            raise ContextOverflow(len(prompt) + 1, self.facts.context)
        if isinstance(self.answer, str):
            tokens = await self.tokenize(self.answer, special=True, bos=False)
        else:
            tokens = [TokenId(byte) for piece in self.answer for byte in piece]
        usage = Usage(len(prompt), 0, min(len(tokens), max_tokens))
        self.running += 1
        try:
            for token in tokens[:max_tokens]:
                logprob = -token / 1000 if sampling.logprobs >= 0 else None
                top = tuple((TokenId(other), -1.0) for other in range(max(sampling.logprobs, 0)))
                yield Step(token, logprob, top)
            yield Step(finish="length" if len(tokens) > max_tokens else self.finish, usage=usage)
        finally:
            self.running -= 1


# Templates, shortened, with the idioms of those that the models' files carry.
TEMPLATES = {path.stem: path.read_text() for path in (Path(__file__).parent / "chat_templates").glob("*.jinja")}
