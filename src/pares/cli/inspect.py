"""What is inside of models: inspect, diff."""

from __future__ import annotations

from typing import Annotated

import typer

from pares.api.commons import Difference, DifferenceRequest, TensorStatistics
from pares.api.schemas import ModelDetail, Tensors
from pares.cli.client import PATIENT_S, Client, quote
from pares.cli.complete import ModelName, known_names
from pares.cli.connect import run
from pares.cli.figures import bar, facts, quantity, size, table
from pares.cli.terminal import Terminal, on_one_line

_DIFFERING = "A model here, or a version whose file is here."
_Left = Annotated[str, typer.Argument(metavar="LEFT", help=_DIFFERING, autocompletion=known_names)]
_Right = Annotated[str, typer.Argument(metavar="RIGHT", help="What to compare it with.", autocompletion=known_names)]


def inspect(
    ctx: typer.Context,
    model: ModelName,
    tensor: Annotated[str, typer.Argument(metavar="[TENSOR]", help="Look at the weights of this one.")] = "",
) -> None:
    """Look into a model: its header, its tensors, and the weights of one of them.

    Of the weights a sample is looked at: range, mean, share of zeros, histogram.
    """

    async def work(node: Client, out: Terminal) -> None:
        address = f"/models/{quote(model)}"
        if tensor:
            sample = await node.get(f"{address}/statistics?tensor={quote(tensor)}", TensorStatistics)
            out.result(sample, _weights(sample))
            return
        detail = await node.get(address, ModelDetail)
        found = await node.get(f"{address}/tensors", Tensors)
        stated = facts((on_one_line(key), on_one_line(str(value))) for key, value in detail.facts.items())
        text = "\n\n".join(filter(None, (stated, tensor_table(found))))
        out.result({"facts": detail.facts, "tensors": found.tensors}, text)

    run(ctx, work)


def diff(ctx: typer.Context, left: _Left, right: _Right) -> None:
    """Show which tensors differ between two models, and how much each layer changed.

    Changed is the norm of the difference over the norm of the left one: 0 is equal, 1 as large as the weights.
    """

    async def work(node: Client, out: Terminal) -> None:
        with out.waiting(f"Comparing {left} with {right}"):
            found = await node.post(
                "/differences", Difference, DifferenceRequest(left=left, right=right), wait_s=PATIENT_S
            )
        out.result(found, _difference(found))

    run(ctx, work)


def tensor_table(found: Tensors) -> str:
    """All tensors of a model."""
    rows = ((on_one_line(t.name), t.type, _shape(t.shape), size(t.size)) for t in found.tensors)
    return table(("NAME", "TYPE", "SHAPE", "SIZE"), rows)


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _weights(sample: TensorStatistics) -> str:
    told = facts(
        [
            ("tensor", on_one_line(sample.name)),
            ("type", sample.type),
            ("shape", _shape(sample.shape)),
            ("size", size(sample.size)),
            ("looked at", f"{quantity(sample.sampled)} weights"),
            ("range", f"{sample.least:.4g} to {sample.most:.4g}"),
            ("mean", f"{sample.mean:.4g}"),
            ("deviation", f"{sample.deviation:.4g}"),
            ("zeros", _percent(sample.zeros)),
            ("not finite", sample.odd or ""),
        ]
    )
    return f"{told}\n\n{_histogram(sample)}".rstrip()


def _histogram(sample: TensorStatistics) -> str:
    counts, most = sample.histogram, max(sample.histogram, default=0)
    if not most:
        return ""
    step = (sample.most - sample.least) / len(counts)
    rows = (
        (f"{sample.least + number * step: .3g}", _percent(count / sum(counts)), bar(count / most))
        for number, count in enumerate(counts)
    )
    return table(("FROM", "SHARE", ""), rows)


def _difference(found: Difference) -> str:
    others = [each for each in found.tensors if each.state != "equal"]
    if not others:
        return f"All {found.equal} tensors are equal."
    parts = [f"{found.equal} tensors are equal, {len(others)} are not."]
    most = max((layer.relative or 0.0 for layer in found.layers), default=0.0) or 1.0
    if any(layer.changed for layer in found.layers):
        rows = (
            (str(layer.layer), f"{layer.changed} of {layer.tensors}", *_change(layer.relative, most))
            for layer in found.layers
        )
        parts.append(table(("LAYER", "TENSORS", "CHANGED", ""), rows))
    told = ((on_one_line(each.name), each.state, _change(each.relative)[0]) for each in others)
    return "\n\n".join([*parts, table(("TENSOR", "STATE", "CHANGED"), told)])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _change(relative: float | None, most: float = 1.0) -> tuple[str, str]:
    """As a number and as a bar; neither where it cannot be computed."""
    return ("", "") if relative is None else (f"{relative:.4g}", bar(relative / most))
