"""What iroh's words for a failure mean, in ours: those of its messages are for people who know its source. Pure."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """What a peer or iroh said, fit for a log: one short line."""
    return "".join(c if c.isprintable() else " " for c in text[:100])


def connection_end(told: str) -> str:
    """Why a connection ended, from iroh's words for it."""
    if said := re.fullmatch(r"closed by peer: (.*) \(code \d+\)", told, re.DOTALL):
        return plain(said[1])
    if told.startswith("closed by peer"):
        return "closed by the peer"
    return "timed out" if "timed out" in told else plain(told)


_STREAM_ENDS = {
    "TimedOut": "The peer does not answer any more.",
    "LocallyClosed": "The connection was closed here.",
    "ApplicationClosed": "The peer closed the connection.",
    "ConnectionLost": "The connection broke.",
    "Reset": "The peer gave the stream up.",
    "Stopped": "The peer gave the stream up.",
}
_REFUSALS = {
    "known protocol": "it does not speak this protocol",
    "UnknownIssuer": "somebody else answers there",
    "refused to accept": "it takes no more connections now",
    "to ourself": "this is its own key",
    "timed out": "it does not answer",
    "No addressing": "no address of it is known",
}


def stream_end(message: str) -> str:
    return _first(_STREAM_ENDS, message, "The stream ended.")


def refusal(message: str) -> str:
    return _first(_REFUSALS, message, "the connection could not be made")


def _first(sentences: dict[str, str], message: str, otherwise: str) -> str:
    return next((sentence for word, sentence in sentences.items() if word in message), otherwise)
