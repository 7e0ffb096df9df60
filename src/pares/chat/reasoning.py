"""What a thinking model writes before its answer, and the tags around it."""

from __future__ import annotations

from typing import NamedTuple

from pares.chat.messages import Message


class Tags(NamedTuple):
    """The markers around a model's reasoning."""

    open: str
    close: str


TAGS = (
    Tags("<think>", "</think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<|channel>thought", "<channel|>"),
)


def tags_of(source: str) -> Tags | None:
    """The tags a model thinks between, if its template speaks of any: other models may write such tags as text."""
    return next((tags for tags in TAGS if tags.open in source or tags.close in source), None)


def markers(tags: Tags | None) -> frozenset[str]:
    """Texts of the control tokens that these tags may begin with or be."""
    return frozenset() if tags is None else frozenset({*tags, tags.open.removesuffix("thought")})


def is_open(prompt: str, tags: Tags | None) -> bool:
    """Whether the template ends the prompt inside of the reasoning, as templates of some models do."""
    return tags is not None and prompt.rstrip().endswith(tags.open)


def opened(prompt: str, tags: Tags) -> str:
    """The prompt, with the reasoning begun."""
    return prompt if is_open(prompt, tags) else f"{prompt}{tags.open}\n"


def closed(prompt: str, tags: Tags) -> str:
    """The prompt, with the reasoning that it may have begun ended."""
    return f"{prompt}{tags.close}\n\n" if is_open(prompt, tags) else prompt


def continued(prompt: str, tags: Tags | None, message: Message) -> tuple[str, bool]:
    """The prompt with an unfinished turn at its end, and whether that is still inside of its reasoning."""
    if tags is None or not (message.reasoning or is_open(prompt, tags)):
        return prompt + message.content, False
    prompt = opened(prompt, tags) + message.reasoning
    if not message.content:
        return prompt, True
    return f"{prompt}\n{tags.close}\n\n{message.content}", False
