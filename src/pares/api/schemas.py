"""The shapes of the control API, `/pares/v1`: what the page and the command line see. `openapi.py` describes them.

Times are ISO 8601 in UTC, sizes are bytes, durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Fit = Literal["runs well", "tight", "needs more machines", "will not run"]


class Machine(msgspec.Struct, frozen=True):
    """What this computer can do."""

    name: str
    system: str
    processor: str
    instruction_set: str
    """The widest that llama.cpp uses here: AVX512, AVX2, NEON, ..."""
    cores: int
    """Physical ones."""
    cores_busy: float
    memory_total: int
    memory_free: int
    disk_free: int
    gpus: tuple[str, ...] = ()


class Loaded(msgspec.Struct, frozen=True):
    """A model in memory, as `ps` shows it."""

    name: str
    state: Literal["loading", "ready", "stopping"]
    profile: Literal["fast", "exact"]
    exact: str
    """Empty where the load-time probe found this model exact here, else the reason why not."""
    fingerprint: str
    memory_bytes: int
    """Resident memory of its worker."""
    context: int
    """Tokens one request may have."""
    threads: int
    running: int
    waiting: int
    sequences: int
    tokens_per_s: float
    """Over the last seconds of work; 0 where it has not worked yet."""
    pid: int
    progress: float = 1.0
    """Of loading, 0 to 1."""
    expires_at: str | None = None
    """When it will be unloaded if nobody uses it; None = never."""
    adapters: tuple[str, ...] = ()


class NodeStatus(msgspec.Struct, frozen=True):
    """One screen about this node."""

    version: str
    ready: bool
    pid: int
    home: str
    url: str
    uptime_s: float
    offline: bool
    listening_beyond_this_machine: bool
    key_required: bool
    memory_bytes: int
    """Resident memory of the node itself, workers not counted."""
    machine: Machine
    loaded: tuple[Loaded, ...]
    pulls_active: int
    models: int
    passing: bool = False
    """It runs for one command, and stops when that ends."""
    id: str = ""
    """Hex of its public key."""
    words: str = ""
    """Five words for that key."""
    circles: int = 0
    network: Literal["alone", "connecting", "connected", "offline"] = "alone"
    """`connected` only after a real exchange with a peer. `alone`: it belongs to no circle."""
    peers_online: int = 0


class Need(msgspec.Struct, frozen=True):
    """The sum behind a fit label."""

    weights: int
    kv_cache: int
    buffers: int
    total: int
    free: int
    context: int
    """Tokens this sum is for."""
    largest_context: int
    text: str


class ModelRow(msgspec.Struct, frozen=True):
    """A model on this machine, as `list` shows it."""

    name: str
    kind: Literal["model", "adapter", "alias", "created"]
    size: int
    quantization: str
    parameters: int
    architecture: str
    licence: str
    added_at: str
    linked: bool
    """Imported by reference: its file lies outside of the home and is never deleted."""
    missing: bool
    loaded: bool
    fit: Fit
    need: Need | None
    broken: str = ""
    """Why the file cannot be used, if so."""


class TensorRow(msgspec.Struct, frozen=True):
    """One tensor of the readable map."""

    name: str
    type: str
    shape: tuple[int, ...]
    elements: int
    size: int
    offset: int
    layer: int
    """-1 for tensors outside of the layers."""


class ModelDetail(msgspec.Struct, frozen=True):
    """Everything `show` and the inspect page tell, but the tensors (own address: they are many)."""

    row: ModelRow
    path: str
    sha256: str
    """Empty while it is being computed."""
    origin: str
    context_trained: int
    layers: int
    embedding_length: int
    vocabulary: int
    facts: Mapping[str, object]
    """Architecture metadata of the header, as written there: arrays are given as `[... n items]`."""
    tokenizer: Mapping[str, object]
    templates: Mapping[str, str]
    capabilities: tuple[str, ...]
    """Of: chat, completion, embedding, tools, thinking, insert."""
    licence_text: str
    system: str = ""
    parameters: Mapping[str, object] = {}
    alias_of: str = ""
    base: str = ""
    adapter: str = ""
    loaded: Loaded | None = None
    """How it computes here and now; None while it is not in memory."""


class CatalogueRow(msgspec.Struct, frozen=True):
    """A model that can be had with one click."""

    name: str
    title: str
    description: str
    size: int
    quantization: str
    parameters: int
    licence: str
    chat: bool
    """False for base models, which only go on with a text."""
    here: bool
    fit: Fit
    need: Need
    starter: bool
    """The one that chat starts with in under a minute."""


class PullStatus(msgspec.Struct, frozen=True):
    """One download."""

    id: str
    source: str
    name: str
    state: Literal["queued", "checking", "fetching", "verifying", "done", "paused", "failed"]
    bytes: int
    total: int
    """0 while unknown."""
    bytes_per_s: float
    eta_s: float | None
    origin: str
    """Where the bytes come from, in words."""
    error: str = ""
    code: str = ""
    created_at: str = ""
    layers: str = ""
    """The part that is wanted; empty: all."""
    priority: int = 1
    limit_bytes_per_s: int = 0
    version: str = ""
    """The id of the version, where it comes from a circle."""


class PullPlan(msgspec.Struct, frozen=True):
    """The answer to a dry run: what a pull would take, and whether it would fit."""

    source: str
    name: str
    size: int
    disk_needed: int
    disk_free: int
    sha256: str
    licence: str
    fits_disk: bool
    fit: Fit | None
    need: Need | None
    version: str = ""
    """The id of the version, where it would come from a circle."""
    licence_text: str = ""
    licence_accepted: bool = True
    """False: `accept_licence` has to be given."""
    holders: int = 0
    """Members who would send it, and are there."""


class PullRequest(msgspec.Struct, frozen=True):
    source: str
    """A catalogue name, a version of a circle by name or id, an https:// address, hf:owner/repo/file, or a path."""
    name: str = ""
    dry_run: bool = False
    layers: Annotated[str, Meta(pattern=r"^(|header|head|\d{1,5}-\d{1,5}(\+head)?)$")] = ""
    """Only a part: `header`; `head` (also embedding and output); `A-B` (layers A to before B); `A-B+head`."""
    accept_licence: bool = False
    """Its licence was shown, and the owner of this node agrees to it."""
    priority: Annotated[int, Meta(ge=0, le=2)] = 1
    limit_bytes_per_s: Annotated[int, Meta(ge=0, le=1 << 53)] = 0


class PullChange(msgspec.Struct, frozen=True, omit_defaults=True):
    priority: Annotated[int, Meta(ge=0, le=2)] | None = None
    limit_bytes_per_s: Annotated[int, Meta(ge=0, le=1 << 53)] | None = None


class ImportRequest(msgspec.Struct, frozen=True):
    path: str
    name: str = ""


class CopyRequest(msgspec.Struct, frozen=True):
    source: str
    name: str


class CreateRequest(msgspec.Struct, frozen=True):
    name: str
    modelfile: str


class Created(msgspec.Struct, frozen=True):
    name: str
    warnings: tuple[str, ...] = ()


class Removed(msgspec.Struct, frozen=True):
    name: str
    bytes_freed: int


class LoadRequest(msgspec.Struct, frozen=True):
    context: int | None = None
    profile: Literal["fast", "exact"] | None = None
    keep_alive_s: float | None = None
    """Seconds without use after which it is unloaded; negative = never."""


class MessageNode(msgspec.Struct, frozen=True):
    """One message in the tree of a conversation."""

    id: str
    parent_id: str | None
    role: Literal["system", "user", "assistant"]
    content: str
    reasoning: str
    model: str
    state: Literal["complete", "stopped", "failed"]
    created_at: str
    prompt_tokens: int = 0
    generated_tokens: int = 0
    tokens_per_s: float = 0.0
    first_token_s: float = 0.0
    seed: int | None = None
    error: str = ""


class ConversationRow(msgspec.Struct, frozen=True):
    id: str
    title: str
    model: str
    created_at: str
    updated_at: str
    messages: int


class ChatSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sampling and the like, per conversation; None = the model's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    thinking: bool | None = None
    schema: Mapping[str, object] | None = None


class Conversation(msgspec.Struct, frozen=True):
    row: ConversationRow
    system: str
    settings: ChatSettings
    leaf: str | None
    """The message at the end of the branch that is shown."""
    messages: tuple[MessageNode, ...]


class ConversationChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """POST makes a conversation of it, PATCH changes what is given."""

    title: str | None = None
    model: str | None = None
    system: str | None = None
    settings: ChatSettings | None = None
    leaf: str | None = None


class ReplyRequest(msgspec.Struct, frozen=True):
    """Ask for an answer. With `content`: after a new user message under `parent_id`. Without: (again) to `parent_id`.

    An edit is a new message under the old one's parent; a retry is a reply without content to the user message; `go_on`
    continues the stopped assistant message `parent_id`.
    """

    parent_id: str | None = None
    content: str | None = None
    model: str | None = None
    go_on: bool = False


class Key(msgspec.Struct, frozen=True):
    id: str
    name: str
    scopes: tuple[Literal["infer", "admin"], ...]
    created_at: str
    last_used_at: str | None
    revoked: bool


class KeyRequest(msgspec.Struct, frozen=True):
    name: str
    scopes: tuple[Literal["infer", "admin"], ...] = ("infer",)


class NewKey(msgspec.Struct, frozen=True):
    """The only time the key itself is shown: we keep its hash."""

    key: str
    info: Key


class Setting(msgspec.Struct, frozen=True):
    name: str
    """`room.name`"""
    value: object
    default: object
    source: Literal["default", "file", "environment", "flag"]
    description: str
    restart_needed: bool
    environment: str
    """Name of its environment variable."""


class SettingChange(msgspec.Struct, frozen=True):
    value: object


class Check(msgspec.Struct, frozen=True):
    """One line of the doctor."""

    name: str
    state: Literal["ok", "warning", "problem"]
    message: str
    hint: str = ""


class ErrorBody(msgspec.Struct, frozen=True):
    """OpenAI's shape, with our hint and numbers beside."""

    message: str
    type: str
    code: str
    param: str | None = None
    hint: str = ""
    fields: Mapping[str, object] = {}
    """The numbers and names of the message, for machines."""


class ErrorReply(msgspec.Struct, frozen=True):
    error: ErrorBody


class TokenRow(msgspec.Struct, frozen=True):
    """One token of a vocabulary."""

    id: int
    text: str
    """What it stands for; U+FFFD where its bytes are no whole characters."""
    bytes: str
    """Hexadecimal."""
    kind: Literal["normal", "unknown", "control", "user defined", "unused", "byte"]


class Verification(msgspec.Struct, frozen=True):
    """A model file's hash, computed just now, against the one it should have."""

    sha256: str
    expected: str
    """Empty where no hash was known; then the one computed is kept."""
    ok: bool


class LoginRequest(msgspec.Struct, frozen=True):
    token: str


class Link(msgspec.Struct, frozen=True):
    """An address that opens the page once, within five minutes."""

    url: str


class LogLine(msgspec.Struct, frozen=True):
    """One line of the node's log. Prompts and answers are never in it."""

    id: int
    time: str
    level: str
    event: str
    fields: Mapping[str, object]


class Models(msgspec.Struct, frozen=True):
    models: tuple[ModelRow, ...]


class Tensors(msgspec.Struct, frozen=True):
    tensors: tuple[TensorRow, ...]


class Tokens(msgspec.Struct, frozen=True):
    """A page of the vocabulary. `total` counts all tokens that match."""

    total: int
    tokens: tuple[TokenRow, ...]


class CatalogueRows(msgspec.Struct, frozen=True):
    models: tuple[CatalogueRow, ...]


class Pulls(msgspec.Struct, frozen=True):
    pulls: tuple[PullStatus, ...]


class Conversations(msgspec.Struct, frozen=True):
    conversations: tuple[ConversationRow, ...]


class Checks(msgspec.Struct, frozen=True):
    checks: tuple[Check, ...]


class Settings(msgspec.Struct, frozen=True):
    settings: tuple[Setting, ...]


class Keys(msgspec.Struct, frozen=True):
    keys: tuple[Key, ...]


class LogLines(msgspec.Struct, frozen=True):
    lines: tuple[LogLine, ...]
