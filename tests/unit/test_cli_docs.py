"""`docs/CLI.md` is what `--help` says. `python tests/unit/test_cli_docs.py` writes it anew."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import patch

from typer.core import TyperGroup

from pares.cli.app import command, run
from pares.errors import LocalError, ParesError

PAGE = Path(__file__).parents[2] / "docs" / "CLI.md"

INTRODUCTION = """\
# The command line

Written by `tests/unit/test_cli_docs.py` from `--help`; a test keeps both equal.

Every verb talks to the node that runs at your home (`pares up`), over the same HTTP as the page. If none runs, it
starts a private one that ends with the command; `up`, `down`, `status`, `version`, `path` without a model, `config`,
`completion` and `key show`, `export`, `import` do not. `ls` is `list`, `search` is `find`; `serve`, `start` are `up`.

Results go to stdout, everything else to stderr. Bars move on a terminal only. Ctrl-C stops cleanly (a download is
paused and goes on later), a second one at once. Circles, members, peers and versions are named by their name, their id,
or its beginning.

What asks does so on a terminal only, and not with `-y`; elsewhere it is done. Three things are not done unasked: `key
export` over a file that is there and `key import` over another identity, because what they replace is gone; and `pull`
of a version whose licence you have not agreed to, unless you say `--accept-licence`.

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | an error, a problem that `doctor` found, or `status` without a node |
| 2 | wrong usage, a wrong request, a setting that means nothing |
| 3 | there is no such model, version, setting, conversation, circle, peer |
| 4 | it does not fit: memory or disk |
| 5 | offline, or the place to fetch from, or every peer that could, does not answer |
| 6 | the port is taken, or another node has this home |
| 7 | verification failed, or a broken model or identity file |
| 8 | refused: no key, or a wrong one |
| 130 | you stopped it |

## With `--json`

Stdout holds one JSON object; what goes on for a while (`pull`, `verify`, `logs`, `--watch`) gives one per line. The
shapes are those of the control API (`/pares/v1/openapi.json`). An error is `{"error": {"code", "message", "hint"}}`.

| verb | object |
|---|---|
| `up` | `pid`, `url`, `page` (opens the page once), `home`, `version`, `ready`, `already_running` |
| `status` | NodeStatus; without a node `version`, `ready` (false), `home` |
| `down` | `stopped` |
| `list`, `import` | `models`: ModelRow |
| `ps` | `loaded`: Loaded |
| `show` | ModelDetail, VersionDetail; with an option `template`, `license`, `modelfile`, `tensors`, Verification |
| `show --envelope` | the statement itself: a DSSE envelope, byte for byte |
| `find`, `share`, `unshare` | `versions`: VersionRow, VersionDetail, `unshared` and `circles` |
| `lineage`, `endorse`, `revoke`, `export` | Lineage, Voice, Voice, Bundle |
| `verify` | VersionDetail, or Verification of a model that is no version; one per line |
| `inspect`, `diff` | `facts` and `tensors`: TensorRow; TensorStatistics with a tensor; Difference |
| `swarm` | Swarm; with `--watch` one per line |
| `pull` | PullStatus, one per line; with `--dry-run` PullPlan |
| `run`, `chat` | `model`, `text`, `reasoning`, `finish`, `prompt_tokens`, `generated_tokens`, `total_s`, `load_s`, … |
| `ask` | `conversation_id`, `message`: MessageNode |
| `rm` | `removed`: Removed |
| `cp`, `create`, `stop` | ModelRow, Created, `name` |
| `doctor` | `checks`: Check |
| `config list`, the other `config` verbs | `settings`: Setting, Setting |
| `circle new`, `circle rename`, `circle show` | Circle, Circle, CircleDetail |
| `circle ls`, `circle leave`, `circle remove` | `circles`: Circle, `left`: Circle, `removed` and `circle` (ids) |
| `invite` | Invite; with `--wait` once more when somebody has joined; with `--withdraw` its id as `withdrawn` |
| `join` | `circle`: Circle, `seconds` |
| `peers` | a list of Peer; with `--watch` one such list per line |
| `peers name`, `block`, `unblock` | Peer |
| `key new`, `key ls`, `key rm` | NewKey, `keys`: Key, `revoked` |
| `key show`, `export`, `import` | `id` and `words`; `export` also `file` |
| `logs` | LogLine, one per line |
| `path`, `config path`, `version`, `completion` | `path`, `path`, `version`, `script` |

## Environment

`PARES_HOME` is where everything of your node lies. Every setting of `pares config list` is `PARES_<ROOM>_<NAME>`, for
example `PARES_SERVER_PORT`; `PARES_THREADS` is short for `PARES_INFERENCE_THREADS`. A flag is stronger than the
environment, that is stronger than the file (`pares config path`), and that than the default. `NO_COLOR` is respected.
"""


def helps(group: TyperGroup, *words: str) -> Iterator[tuple[str, str]]:
    """Every verb that is not hidden, with its help."""
    printed = io.StringIO()
    with redirect_stdout(printed), patch.dict(os.environ, COLUMNS="100"):
        run([*words, "--help"])
    yield " ".join(("pares", *words)), printed.getvalue()
    for name, verb in group.commands.items():
        if isinstance(verb, TyperGroup):
            yield from helps(verb, *words, name)
        elif not verb.hidden:
            with redirect_stdout(printed := io.StringIO()), patch.dict(os.environ, COLUMNS="100"):
                run([*words, name, "--help"])
            yield " ".join(("pares", *words, name)), printed.getvalue()


def page() -> str:
    verbs = "\n".join(f"## `{verb}`\n\n```\n{text.rstrip()}\n```\n" for verb, text in helps(command()))
    return f"{INTRODUCTION}\n{verbs}"


def test_the_page_says_what_help_says() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `python tests/unit/test_cli_docs.py`"


def test_every_exit_code_is_explained() -> None:
    def codes(kind: type[ParesError]) -> set[int]:
        return {kind.exit_code}.union(*map(codes, kind.__subclasses__()))

    for code in codes(LocalError):
        assert f"\n| {code} | " in INTRODUCTION


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
