"""Versions that circles offer: find, show, where they come from, check, stand for them, warn of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from pares.api.commons import (
    Bundle,
    Holder,
    Lineage,
    LineageNode,
    VersionDetail,
    VersionRow,
    Versions,
    Voice,
    VoiceRequest,
)
from pares.api.network import CircleDetail, Who
from pares.api.schemas import Verification
from pares.cli.client import PATIENT_S, Client, quote
from pares.cli.complete import VersionName, known_names
from pares.cli.connect import run
from pares.cli.figures import facts, quantity, size, table
from pares.cli.terminal import Terminal, on_one_line
from pares.errors import ModelNotFound, NotFound, VerificationFailed
from pares.swarm.predicate import Parent, Version

NOTHING = "Your circles offer nothing. `pares share MODEL` gives them a model of yours."
EDGES = {
    "checked": "checked",
    "stated": "stated, not checked",
    "missing": "its statement is not here",
    "wrong": "wrong",
    "cycle": "goes in a circle",
    "revoked": "revoked",
}
VOICES = {"endorsement": "stands for it", "warning": "warns of it", "revocation": "took it back"}


def find(
    ctx: typer.Context,
    text: Annotated[
        str, typer.Argument(metavar="[TEXT]", help="Part of the name, the publisher, the architecture or the like.")
    ] = "",
    circle: Annotated[str, typer.Option("--circle", metavar="CIRCLE", help="Only what this circle offers.")] = "",
    licence: Annotated[str, typer.Option("--licence", metavar="SPDX", help="Only under this licence.")] = "",
    architecture: Annotated[str, typer.Option("--architecture", metavar="NAME", help="Such as llama, gemma3.")] = "",
    publisher: Annotated[str, typer.Option("--publisher", metavar="PEER", help="Their name or id.")] = "",
    fits: Annotated[bool, typer.Option("--fits", help="Only what runs on this machine.")] = False,
) -> None:
    """Find versions in your circles, and see who holds them (also `search`).

    HOLDERS does not count you. What to be careful about is in the last column.
    """

    async def work(node: Client, out: Terminal) -> None:
        rows = (await node.get("/versions", Versions)).versions
        if circle:
            where = (await node.get(f"/circles/{quote(circle)}", CircleDetail)).circle.id
            rows = tuple(row for row in rows if where in row.circles)
        found = tuple(
            row
            for row in rows
            if _mentions(row, text)
            and licence.lower() in ("", row.licence.lower())
            and architecture.lower() in ("", row.architecture.lower())
            and (row.publisher.name.lower() == publisher.lower() or row.publisher.id.startswith(publisher))
            and (not fits or row.fit in ("runs well", "tight"))
        )
        nothing = "Nothing in your circles is like that. `pares find` shows all there is." if rows else NOTHING
        out.result(Versions(found), _listing(found) if found else nothing)

    run(ctx, work)


def lineage(ctx: typer.Context, version: VersionName) -> None:
    """Show what a version was made from, down to its roots, and what was made from it."""

    async def work(node: Client, out: Terminal) -> None:
        found = await node.get(f"/versions/{quote(version)}/lineage", Lineage)
        out.result(found, _tree(found))
        if found.cut:
            out.note("There is more of it than this.")

    run(ctx, work)


def verify(
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Models here, or versions.", autocompletion=known_names)
    ],
) -> None:
    """Compute roots and hashes again and check signatures. Exit code 7 at the first that is wrong."""

    async def work(node: Client, out: Terminal) -> None:
        for name in names:
            with out.waiting(f"Verifying {name}"):
                checked = await _verified(node, name)
            out.result(checked, _verdict(name, checked))
            wrong = (
                [each for each in checked.findings if each.ok is False] if isinstance(checked, VersionDetail) else []
            )
            if wrong:
                raise VerificationFailed(f"{name} is not what it says: {wrong[0].message}")

    run(ctx, work)


def endorse(
    ctx: typer.Context,
    version: VersionName,
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="Why, in a sentence.")] = "",
) -> None:
    """Stand for a version: you have tried it, or know who made it.

    It is signed with your node's key, and your circles see it.
    """

    async def work(node: Client, out: Terminal) -> None:
        voice = await node.post(f"/versions/{quote(version)}/endorse", Voice, VoiceRequest(text=text))
        out.result(voice, f"You stand for {on_one_line(version)}.")

    run(ctx, work)


def revoke(
    ctx: typer.Context,
    version: VersionName,
    reason: Annotated[str, typer.Argument(metavar="REASON", help="Why, in a sentence.")],
) -> None:
    """Take back a version of yours, or your word for one; warn of another.

    It is signed with your node's key, your circles see it, and it cannot be undone.
    """

    async def work(node: Client, out: Terminal) -> int:
        row = (await node.get(f"/versions/{quote(version)}", VersionDetail)).row
        if not out.confirm(f"Say to all your circles that {named(row)} should not be used?"):
            out.note("Nothing was said.")
            return 1
        voice = await node.post(f"/versions/{row.id}/revoke", Voice, VoiceRequest(text=reason))
        done = "Your circles are warned of" if voice.kind == "warning" else "You took back"
        out.result(voice, f"{done} {named(row)}.")
        return 0

    run(ctx, work)


def export(
    ctx: typer.Context,
    version: VersionName,
    folder: Annotated[Path, typer.Argument(help="Made if it is not there.", file_okay=False, writable=True)],
) -> None:
    """Write a version out for other tools: its files, its statement, and a signature that `model_signing` reads.

    The files are links to those that are here, where the disk allows it.
    """

    async def work(node: Client, out: Terminal) -> None:
        bundle = await node.get(f"/versions/{quote(version)}/bundle", Bundle)
        files = folder / "model"
        files.mkdir(parents=True, exist_ok=True)
        for name, path in bundle.files.items():
            with out.waiting(f"Writing {name}"):
                _link(Path(path), files / name)
        for name, text in (
            ("model.sig", bundle.model_sig),
            ("model.pub", bundle.model_pub),
            ("version.intoto.json", bundle.statement),
        ):
            (folder / name).write_text(text, "utf-8")
        check = f"model_signing verify key --signature {folder}/model.sig --public_key {folder}/model.pub {files}"
        out.result(bundle, f"{version} lies in {folder}. Who has `model-signing` checks it so:\n{check}")

    run(ctx, work)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


async def _verified(node: Client, name: str) -> VersionDetail | Verification:
    """Of a version all that can be checked; of a model that is none, its hash."""
    try:
        return await node.post(f"/versions/{quote(name)}/verify", VersionDetail, wait_s=PATIENT_S)
    except NotFound as missing:
        try:
            return await node.post(f"/models/{quote(name)}/verify", Verification, wait_s=PATIENT_S)
        except ModelNotFound:
            raise missing from None


def _verdict(name: str, checked: VersionDetail | Verification) -> str:
    if isinstance(checked, Verification):
        return f"{name} is what it should be (SHA-256 {checked.sha256})."
    return f"{named(checked.row)}\n{_findings(checked)}"


# In words


def named(row: VersionRow) -> str:
    """A version as one can tell it from others."""
    label = f" {row.label}" if row.label else ""
    return on_one_line(f"{row.name}{label} ({row.id[:8]}) by {row.publisher.name}")


def person(who: Who) -> str:
    """Somebody, with the words of their key."""
    return f"{on_one_line(who.name)} ({who.words})"


def _mentions(row: VersionRow, text: str) -> bool:
    about = " ".join(
        (row.name, row.label, row.publisher.name, row.architecture, row.quantization, row.licence, row.kind)
    )
    return all(word in about.lower() or row.id.startswith(word) for word in text.lower().split())


def _listing(rows: Iterable[VersionRow]) -> str:
    header = (
        "NAME", "LABEL", "ID", "KIND", "SIZE", "PARAMETERS", "QUANT", "LICENCE", "PUBLISHER", "HOLDERS", "HERE", "FIT",
        "CAREFUL",
    )  # fmt: skip
    return table(
        header,
        (
            tuple(
                map(
                    on_one_line,
                    (
                        row.name,
                        row.label,
                        row.id[:8],
                        row.kind,
                        size(row.size),
                        quantity(row.parameters),
                        row.quantization,
                        row.licence,
                        row.publisher.name,
                        _held(row),
                        _here(row),
                        row.fit or "",
                        _careful(row),
                    ),
                )
            )
            for row in rows
        ),
    )


def _held(row: VersionRow) -> str:
    if not row.holders:
        return "nobody" if row.here == "no" else "nobody else"
    part = row.holders - row.whole
    return f"{row.whole} whole" + (f", {part} in part" if part else "") + f", {row.online} online"


def _here(row: VersionRow) -> str:
    here = "" if row.here == "no" else row.here
    return ", ".join(filter(None, (here, "shared" if row.shared else "")))


def _careful(row: VersionRow) -> str:
    conflict = "somebody else publishes another version of this name" if row.conflict else ""
    return "; ".join(filter(None, (row.trouble, conflict, "" if row.complete else "parts of it cannot be had now")))


def portrait(detail: VersionDetail) -> str:
    """All that is known of a version, on one screen."""
    row, said = detail.row, msgspec.convert(detail.predicate, Version)
    told = facts(
        (name, on_one_line(str(value)) if value else "")
        for name, value in (
            ("version", row.name),
            ("label", row.label),
            ("id", row.id),
            ("careful", _careful(row)),
            ("publisher", person(row.publisher)),
            ("published", f"{row.created:%Y-%m-%d}"),
            ("about", said.description),
            ("kind", row.kind),
            ("base", _parent(said.base)),
            ("parents", ", ".join(map(_parent, said.parents))),
            ("source", said.source),
            ("architecture", row.architecture),
            ("parameters", quantity(row.parameters)),
            ("quantization", row.quantization),
            ("layers", row.layers),
            ("trained context", f"{said.architecture.context} tokens" if said.architecture.context else ""),
            ("trained on", "; ".join(each.note or "a description is in the statement" for each in said.data)),
            ("licence", f"{row.licence}, {'you agreed' if detail.licence_accepted else 'you did not agree to it yet'}"),
            ("size", size(row.size)),
            ("fit", row.fit),
            ("memory", row.need.text if row.need else ""),
            ("held by", _held(row)),
            ("here", _here(row)),
            ("model", row.model),
        )
    )
    return "\n\n".join([told, *_tables(detail, said)])


def _tables(detail: VersionDetail, said: Version) -> Iterator[str]:
    files = ((f.name, size(f.size), f.root, "" if f.here == "no" else f.here) for f in detail.files)
    yield table(("FILE", "SIZE", "ROOT", "HERE"), files)
    if detail.holders:
        rows = ((person(h.peer), _part(h), "you" if h.you else "yes" if h.online else "no") for h in detail.holders)
        yield table(("HOLDER", "HOLDS", "ONLINE"), rows)
    yield _findings(detail)
    if said.evaluations:
        results = ((e.suite, e.metric, f"{e.value:g}", e.by[:8]) for e in said.evaluations)
        yield table(("EVALUATION", "METRIC", "VALUE", "BY"), (tuple(map(on_one_line, row)) for row in results))
    if detail.voices:
        yield table(
            ("WHO", "SAYS", "ON", "WHY"),
            (
                (
                    person(voice.by),
                    "withdrew what they said" if voice.withdrawn else VOICES[voice.kind],
                    f"{voice.at:%Y-%m-%d}",
                    on_one_line(voice.text),
                )
                for voice in detail.voices
            ),
        )


def _findings(detail: VersionDetail) -> str:
    signs = {True: "ok", False: "WRONG", None: "unknown"}
    rows = ((signs[each.ok], each.what, on_one_line(each.message)) for each in detail.findings)
    return table(("CHECK", "OF", "RESULT"), rows)


def _part(held: Holder) -> str:
    if held.layers is None:
        return "all of it"
    first, after = held.layers
    parts = (f"layers {first} to {after - 1}" if after > first else "", "head" if held.head else "")
    return ", ".join(filter(None, parts)) or "header"


def _parent(parent: Parent | None) -> str:
    if parent is None:
        return ""
    return parent.name + (f" ({parent.version[:8]})" if parent.version else ", by name only")


def _tree(found: Lineage) -> str:
    nodes = {node.id: node for node in found.nodes}
    above: dict[str, list[tuple[str, str]]] = {}
    below: dict[str, list[tuple[str, str]]] = {}
    for edge in found.edges:
        how = f"{EDGES[edge.state]}: {on_one_line(edge.message)}"
        above.setdefault(edge.child, []).append((edge.parent, f"{edge.relation} of it, {how}"))
        below.setdefault(edge.parent, []).append((edge.child, f"{edge.relation}, {how}"))
    parts = [_node_text(nodes[found.of])]
    for title, edges in (("made from", above), ("made from it", below)):
        if found.of in edges:
            parts += ["", title, *_branches(found.of, edges, nodes)]
    if len(parts) == 1:
        parts.append("Its statement names no parents, and nothing is known that was made from it.")
    return "\n".join(parts)


def _branches(of: str, edges: dict[str, list[tuple[str, str]]], nodes: dict[str, LineageNode]) -> Iterator[str]:
    """Lines for what is at the other side of its edges; what was shown already is not followed again."""
    shown = {of}

    def ends(of: str, margin: str) -> list[tuple[str, str, str, str]]:
        marks = ["├─"] * (len(edges.get(of, ())) - 1) + ["└─"]
        found = [(margin, mark, other, how) for mark, (other, how) in zip(marks, edges.get(of, ()), strict=False)]
        return found[::-1]

    left = ends(of, "")
    while left:
        margin, mark, other, how = left.pop()
        inner = margin + ("   " if mark == "└─" else "│  ")
        yield f"{margin}{mark} {_node_text(nodes[other])}{' (see above)' if other in shown else ''}"
        yield f"{inner}  {how}"
        if other not in shown:
            shown.add(other)
            left += ends(other, inner)


def _node_text(node: LineageNode) -> str:
    facts_ = (
        node.kind or "",
        f"by {node.publisher.name}" if node.publisher else "",
        "" if node.here == "no" else "here",
    )
    told = ", ".join(filter(None, (*facts_, "" if node.known else "known by name only", *node.troubles)))
    id_ = "" if node.id.startswith("name:") else f" {node.id[:8]}"
    return on_one_line(f"{node.name}{id_}" + (f" ({told})" if told else ""))
