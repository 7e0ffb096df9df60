"""Circles: make, look at, leave; let somebody in, and join."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from io import StringIO
from types import NoneType
from typing import Annotated, Literal

import typer

from pares.api import network
from pares.cli.client import Client, quote
from pares.cli.connect import run
from pares.cli.figures import facts, table, until
from pares.cli.terminal import Terminal, on_one_line
from pares.config import parse_seconds, wants_color
from pares.errors import BadRequest, NotFound, PeersUnreachable

DAY_S = 86_400
LOOK_S = 1.0
JOIN_S = 120.0
"""How long the node may take to join: it has its own, shorter deadlines."""
DARK_ON_LIGHT = "\x1b[97;40m", "\x1b[0m"
"""Around lines of blocks that are the light parts: cameras prefer dark on light, whatever the terminal's colours."""

circle = typer.Typer(help="Groups of peers who agreed to help each other: make, show, leave them.")

CircleName = Annotated[str, typer.Argument(metavar="CIRCLE", help="Its name or id, as `pares circle ls` shows it.")]


def _seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time such as 30m, 24h or 7d.") from None


@circle.callback(invoke_without_command=True)
def _circle(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        list_circles(ctx)


@circle.command("new")
def new_circle(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    open_: Annotated[
        bool, typer.Option("--open", help="A commons: whoever has its link belongs; members are strangers.")
    ] = False,
    local_only: Annotated[
        bool, typer.Option("--local-only", help="Members are never looked up in the public DHT.")
    ] = False,
    copies: Annotated[
        int,
        typer.Option(
            "--copies", min=0, max=64, help="Members with room keep what fewer than so many hold; 0: nobody does."
        ),
    ] = 2,
) -> None:
    """Make a circle. You are its first member; `pares invite` lets others in."""

    async def work(node: Client, out: Terminal) -> None:
        asked = network.CircleRequest(name, open_, not local_only, copies)
        made = await node.post("/circles", network.Circle, asked)
        title = on_one_line(made.name)
        out.result(made, f"Made the circle {title}. Let somebody in: pares invite {shlex.quote(title)}")

    run(ctx, work)


@circle.command("ls")
def list_circles(ctx: typer.Context) -> None:
    """List your circles."""

    async def work(node: Client, out: Terminal) -> None:
        found = await node.get("/circles", network.Circles)
        rows = [
            (on_one_line(c.name), c.id[:8], c.role, str(c.members), str(c.online), _kind(c), f"{c.since:%Y-%m-%d}")
            for c in found.circles
        ]
        header = ("NAME", "ID", "YOU ARE", "MEMBERS", "ONLINE", "KIND", "SINCE")
        nothing = "You are in no circle. `pares circle new NAME` makes one, `pares join LINK` joins one."
        out.result(found, table(header, rows) if rows else nothing)

    run(ctx, work)


@circle.command("show")
def show_circle(ctx: typer.Context, name: CircleName) -> None:
    """Show a circle: its members, who invited them, who is there, and open invites."""

    async def work(node: Client, out: Terminal) -> None:
        found = await node.get(f"/circles/{quote(name)}", network.CircleDetail)
        out.result(found, _portrait(found))

    run(ctx, work)


@circle.command("leave")
def leave(ctx: typer.Context, name: CircleName) -> None:
    """Leave a circle. To come back you need a new invite."""

    async def work(node: Client, out: Terminal) -> int:
        found = (await node.get(f"/circles/{quote(name)}", network.CircleDetail)).circle
        title = on_one_line(found.name)
        if not out.confirm(f"Leave {title} ({found.members} members)? To come back you need a new invite."):
            out.note("You stay.")
            return 1
        await node.delete(f"/circles/{found.id}", NoneType)
        out.result({"left": found}, f"You have left {title}.")
        return 0

    run(ctx, work)


@circle.command("rename")
def rename(
    ctx: typer.Context,
    name: CircleName,
    new_name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called from now on.")],
) -> None:
    """Rename a circle: for everybody if you founded it, else for yourself."""

    async def work(node: Client, out: Terminal) -> None:
        now = await node.patch(f"/circles/{quote(name)}", network.Circle, network.CircleChange(new_name))
        whose = "for everybody" if now.role == "founder" else f"for you; its own name is {on_one_line(now.title)}"
        out.result(now, f"It is now called {on_one_line(now.name)} {whose}.")

    run(ctx, work)


@circle.command("remove")
def remove(
    ctx: typer.Context,
    name: CircleName,
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="Their name or id, as `pares circle show` has it.")],
) -> None:
    """Remove a member from a circle, for everybody."""

    async def work(node: Client, out: Terminal) -> int:
        found = await node.get(f"/circles/{quote(name)}", network.CircleDetail)
        alike = [m for m in found.members if m.name == member or (len(member) >= 4 and m.id.startswith(member))]
        who, id_ = (_person(alike[0]), alike[0].id) if len(alike) == 1 else (member, member)
        title = on_one_line(found.circle.name)
        if not out.confirm(f"Remove {who} from {title}, for everybody?"):
            out.note("Nobody was removed.")
            return 1
        await node.delete(f"/circles/{found.circle.id}/members/{quote(id_)}", NoneType)
        out.result({"removed": id_, "circle": found.circle.id}, f"Removed {who} from {title}.")
        return 0

    run(ctx, work)


def invite(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="[CIRCLE]", help="Which one, as `pares circle ls` shows it; default: your only one."),
    ] = "",
    expires: Annotated[
        float | None, typer.Option("--expires", parser=_seconds, metavar="TIME", help="For how long; default: 24h.")
    ] = None,
    uses: Annotated[int, typer.Option("--uses", min=1, max=1000, help="How many can join by it.")] = 1,
    role: Annotated[
        Literal["member", "guest"], typer.Option("--role", help="What they become; guests cannot invite.")
    ] = "member",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until somebody has joined.")] = False,
    qr: Annotated[bool, typer.Option("--qr", help="Print the QR code even where no terminal is.")] = False,
    withdraw: Annotated[str, typer.Option("--withdraw", metavar="ID", help="Make an invite useless instead.")] = "",
) -> None:
    """Make a link that lets somebody into a circle. It is all they need.

    Whoever has the link can use it: give it to nobody else.
    """

    async def work(node: Client, out: Terminal) -> None:
        where = await _circle_of(node, name)
        if withdraw:
            await node.delete(f"/circles/{where}/invites/{quote(withdraw)}", NoneType)
            out.result({"withdrawn": withdraw}, "Nobody can join by this invite any more.")
            return
        asked = network.InviteRequest(DAY_S if expires is None else round(expires), uses, role)
        made = await node.post(f"/circles/{where}/invites", network.Invite, asked)
        _show_invite(made, out, qr=qr)
        if wait:
            with out.waiting("Waiting for somebody to join"):
                made = await _until_joined(node, made)
            out.result(made, "\n".join(f"{_person(who)} joined." for who in made.joined))
        else:
            await _warn_of_passing(node, out, "Nobody can join while your node is not up: `pares up`.")

    run(ctx, work)


def join(
    ctx: typer.Context, link: Annotated[str, typer.Argument(metavar="LINK", help="What `pares invite` printed.")]
) -> None:
    """Join the circle that a link leads to, after showing what it is. Asks once."""

    async def work(node: Client, out: Terminal) -> int:
        asked = network.LinkRequest(link.strip())
        found = await node.post("/circles/join/preview", network.JoinPreview, asked)
        title = on_one_line(found.name)
        if found.already:
            detail = await node.get(f"/circles/{quote(found.circle)}", network.CircleDetail)
            out.result(network.Joined(detail.circle, 0.0), f"You are in {title} already.")
            return 0
        out.note(_preview_text(found))
        if not out.confirm(f"Join {title}, invited by {_person(found.inviter)}?"):
            out.note("You did not join; nobody was told anything.")
            return 1
        with out.waiting(f"Joining {title}"):
            joined = await node.post("/circles/join", network.Joined, asked, wait_s=JOIN_S)
        there = f"{joined.circle.members} members, {joined.circle.online} of them online"
        out.result(joined, f"You are in {title} after {joined.seconds:.1f} s: {there}.")
        await _warn_of_passing(node, out, "Peers reach you while your node is up: `pares up`.")
        return 0

    run(ctx, work)


async def _circle_of(node: Client, name: str) -> str:
    """The circle that was named, or else the only one, as a part of an address."""
    if name:
        return quote(name)
    found = (await node.get("/circles", network.Circles)).circles
    if not found:
        raise NotFound("You are in no circle.", hint="`pares circle new NAME` makes one.")
    if len(found) > 1:
        names = ", ".join(on_one_line(one.name) for one in found)
        raise BadRequest(f"You are in {len(found)} circles: {names}.", hint="Say which: `pares invite CIRCLE`.")
    return found[0].id


async def _until_joined(node: Client, made: network.Invite) -> network.Invite:
    """The invite as it is when somebody has come in by it. Raises PeersUnreachable once nobody can any more."""
    import asyncio

    while datetime.now(UTC) < made.expires_at:
        await asyncio.sleep(LOOK_S)
        detail = await node.get(f"/circles/{made.circle}", network.CircleDetail)
        now = next((one for one in detail.invites if one.id == made.id), None)
        if now is None:
            break
        if now.joined:
            return now
    raise PeersUnreachable("The invite is no longer good, and nobody has joined.", hint="Make another: `pares invite`.")


async def _warn_of_passing(node: Client, out: Terminal, text: str) -> None:
    status = await node.status()
    if status is not None and status.passing:
        out.warn(text)


def _show_invite(made: network.Invite, out: Terminal, *, qr: bool) -> None:
    out.result(made, made.link)
    if not out.options.json and (qr or sys.stdout.isatty()):
        picture = _qr_code(made.link)
        if qr or len(picture[0]) < shutil.get_terminal_size().columns:
            plain = out.options.no_color or not sys.stdout.isatty() or not wants_color()
            begin, end = ("", "") if plain else DARK_ON_LIGHT
            out.write("".join(f"{begin}{line}{end}\n" for line in picture))
    who = "one" if made.uses_left == 1 else made.uses_left
    out.note(
        f"Lets {who} in as {made.role} within {until(made.expires_at)}. Give it to nobody else: it is all they need."
    )
    out.note(f"`pares invite --withdraw {made.id}` makes it useless.")


def _qr_code(link: str) -> list[str]:
    import segno

    text = StringIO()
    segno.make(link, error="l", micro=False).terminal(text, compact=True, border=2)
    return text.getvalue().splitlines()


def _kind(found: network.Circle) -> str:
    return ("commons" if found.open else "by invitation") + ("" if found.internet else ", not in the DHT")


def _person(who: network.Who | network.Member) -> str:
    return f"{on_one_line(who.name)} ({who.words})"


def _preview_text(found: network.JoinPreview) -> str:
    return facts(
        [
            ("circle", on_one_line(found.name) + (", open to whoever has the link" if found.open else "")),
            ("invited by", f"{_person(found.inviter)}: they can read you these words from `pares key show`"),
            ("you become", f"{found.role}, if you join within {until(found.expires_at)}"),
            *(("they learn" if not number else "", line) for number, line in enumerate(found.shares)),
        ]
    )


def _portrait(found: network.CircleDetail) -> str:
    it = found.circle
    told = facts(
        [
            ("circle", on_one_line(it.name)),
            ("its own name", on_one_line(it.title) if it.title != it.name else ""),
            ("id", it.id),
            ("kind", _kind(it)),
            ("founder", _person(it.founder)),
            ("you are", f"{it.role} since {it.since:%Y-%m-%d}"),
            ("members", f"{it.members}, {it.online} online"),
        ]
    )
    parts = [told, _members(found.members)]
    if found.invites:
        rows = (
            (i.id, i.role, str(i.uses_left), until(i.expires_at), ", ".join(map(_person, i.joined)))
            for i in found.invites
        )
        parts.append(table(("INVITE", "ROLE", "USES LEFT", "EXPIRES IN", "JOINED"), rows))
    return "\n\n".join(parts)


def _members(found: Sequence[network.Member]) -> str:
    names = {member.id: on_one_line(member.name) for member in found}
    rows = (
        (
            names[m.id],
            m.words,
            m.role,
            names.get(m.invited_by, m.invited_by[:8]),
            f"{m.since:%Y-%m-%d}",
            "you" if m.you else "yes" if m.online else "no",
        )
        for m in found
    )
    return table(("NAME", "WORDS", "ROLE", "INVITED BY", "SINCE", "ONLINE"), rows)
