"""What the scripted model of the page's tests says: plain and rich answers, and the worst that a model could send."""

from __future__ import annotations

POEM = """\
The lamp turns slow above the rocks,
   and every ship that passes knocks
once on the dark, and is let through.

*The keeper* sleeps. The light does not."""

RICH = """\
## Counting words

Split at white space and count what is left. This is **enough** for most texts: `str.split()` skips runs of blanks.

```python
def count_words(text: str) -> dict[str, int]:
    # How often each word occurs, most frequent first.
    counts: dict[str, int] = {}
    for word in text.lower().split():
        counts[word] = counts.get(word, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
```

| text | words | note |
|---|---:|---|
| `"a b a"` | 2 | one of them twice |
| `""` | 0 | nothing to count |

1. Lower the case first.
2. Then decide about *punctuation*:
   - strip it, or
   - keep it as a word of its own.

> What counts as a word is a question of language, not of code.

See [the documentation](https://docs.python.org/3/library/stdtypes.html#str.split) for the details."""

THOUGHT = (
    "<think>The question is short. Sunlight is scattered; blue more than red.</think>Because air scatters blue light."
)

HOSTILE = """\
Before.

<img src=x onerror="window.pwned=1">
<script>window.pwned=2</script>
<svg onload="window.pwned=3"><circle r=9></svg>

[one](javascript:window.pwned=4) [two](data:text/html,<script>parent.pwned=5</script>) [three](vbscript:x)
[four](JaVaScRiPt:window.pwned=6) [five](#/settings) [six](//elsewhere.invalid/x) [fine](https://example.org/a?b=c)

![a picture](https://elsewhere.invalid/track.png) ![data](data:image/png;base64,AAAA)

<form action="https://elsewhere.invalid/steal"><input autofocus onfocus="window.pwned=7"><button>go</button></form>
<style>body { display: none }</style> <iframe src="https://elsewhere.invalid"></iframe>
<a href="https://elsewhere.invalid" onmouseover="window.pwned=8">hover</a> <base href="https://elsewhere.invalid">
<div style="position:fixed;inset:0;background:url(https://elsewhere.invalid/x)">over everything</div>

```html
<img src=x onerror="window.pwned=9">
```

| <b onclick="window.pwned=10">h</b> | x |
|---|---|
| <script>window.pwned=11</script> | &lt;ok&gt; |

&#x6A;avascript:alert(1) <https://elsewhere.invalid/auto> www.elsewhere.invalid __proto__ constructor &constructor;

After."""

NESTED = "\n".join(
    (
        "> " * 3000 + "deep",
        "",
        "- " * 3000 + "deep",
        "",
        "*" * 20000 + "a" + "*" * 20000,
        "",
        "[" * 20000,
        "",
        "_a" * 20000,
        "",
        "Alive.",
    )
)
LONG_LINE = "x" * 1_000_000 + "\n\nAlive."
LONG_PROSE = "word *and* [more](https://example.org) " * 3000 + "\n\nAlive."

ANSWERS = {
    "poem": POEM,
    "hostile": HOSTILE,
    "nested": NESTED,
    "long line": LONG_LINE,
    "long prose": LONG_PROSE,
    "think": THOUGHT,
    "function": RICH,
}
DEFAULT = """\
Because the work of sending is shared. With one server and *n* readers, every byte leaves it *n* times.

In a swarm a byte leaves the seed about once, and the peers pass it on.

As *n* grows, so does the sum of uploads."""


def answer_to(question: str) -> str:
    """The answer whose key is in the question."""
    return next((answer for key, answer in ANSWERS.items() if key in question.lower()), DEFAULT)
