"""Every address of the node. This one table routes requests, says who may, and writes the OpenAPI document."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from starlette.responses import Response

from pares.api import anthropic, network, page, schemas, texts
from pares.api import commons as told
from pares.api.calls import Call, Query, Route, reply
from pares.api.control import circles, commons, conversations, events, models, node, peers, pulls
from pares.api.control import reply as replies
from pares.api.metrics import Metrics
from pares.api.ollama import embeddings as ollama_embeddings
from pares.api.ollama import generation, pull
from pares.api.ollama import models as ollama_models
from pares.api.ollama import schemas as ollama
from pares.api.openai import chat, completions, embeddings, responses
from pares.api.openai import models as openai_models
from pares.api.openai import schemas as openai
from pares.api.openapi import document

Json = dict[str, Any]

EVENTS = ("text/event-stream",)
LINES = ("application/x-ndjson",)

_TEXT: dict[str, object] = {"type": "string"}
_COUNT: dict[str, object] = {"type": "integer", "minimum": 0}


async def health(call: Call[None]) -> Response:
    return reply({"status": "ok"})


async def metrics(call: Call[None]) -> Response:
    return Response(call.metrics.text(), media_type=Metrics.CONTENT_TYPE)


async def openapi(call: Call[None]) -> Response:
    return reply(document(ROUTES))


_control = partial(Route, need="admin")
_openai = partial(Route, need="infer", answer=Json)
_ollama = partial(Route, need="infer", answer=Json, any_content_type=True)

_HERE = "/pares/v1"
_MODEL = f"{_HERE}/models/{{name:path}}"
_CONVERSATION = f"{_HERE}/conversations/{{id}}"
_CIRCLE = f"{_HERE}/circles/{{circle:path}}"
_VERSION = f"{_HERE}/versions/{{version:path}}"

CONTROL_ROUTES = (
    _control("POST", f"{_HERE}/login", node.login, "Swap a token for the page's cookie",
             need="nothing", body=schemas.LoginRequest, status=204),
    _control("POST", f"{_HERE}/login/link", node.link, "An address that opens the page once", answer=schemas.Link),
    _control("GET", f"{_HERE}/status", node.status, "One screen about this node", answer=schemas.NodeStatus),
    _control("GET", f"{_HERE}/models", models.listed, "Models on this machine", answer=schemas.Models),
    _control("POST", f"{_HERE}/models/import", models.import_, "Use model files where they lie",
             body=schemas.ImportRequest, answer=schemas.Models),
    _control("POST", f"{_HERE}/models/copy", models.copy, "Give a model another name",
             body=schemas.CopyRequest, answer=schemas.ModelRow),
    _control("POST", f"{_HERE}/models/create", models.create, "Make a model from a Modelfile",
             body=schemas.CreateRequest, answer=schemas.Created),
    _control("GET", f"{_MODEL}/tensors", models.tensors, "All tensors of a model", answer=schemas.Tensors),
    _control("GET", f"{_MODEL}/tokens", models.tokens, "A page of a model's vocabulary", answer=schemas.Tokens,
             query=(Query("search", _TEXT, "Part of the token's text"), Query("offset", _COUNT),
                    Query("limit", {"type": "integer", "minimum": 1, "maximum": models.MAX_TOKENS_A_PAGE}))),
    _control("POST", f"{_MODEL}/load", models.load, "Load a model, and wait until it is ready",
             body=schemas.LoadRequest, body_required=False, answer=schemas.Loaded),
    _control("POST", f"{_MODEL}/unload", models.unload, "Give a model's memory back", status=204),
    _control("POST", f"{_MODEL}/verify", models.verify, "Compare a file with its hash", answer=schemas.Verification),
    _control("GET", f"{_MODEL}/statistics", commons.statistics, "Range, histogram and zeros of a tensor, sampled",
             answer=told.TensorStatistics, query=(Query("tensor", _TEXT, "Its name"),)),
    _control("GET", _MODEL, models.detail, "Everything about a model but its tensors", answer=schemas.ModelDetail),
    _control("DELETE", _MODEL, models.remove, "Remove a model", answer=schemas.Removed,
             query=(Query("force", {"type": "boolean"}, "Also what stands on it"),)),
    _control("GET", f"{_HERE}/catalogue", models.catalogue, "Models that can be had", answer=schemas.CatalogueRows),
    _control("POST", f"{_HERE}/pulls", pulls.start, "Begin a download, or with dry_run say what it would take",
             body=schemas.PullRequest, answer=schemas.PullStatus, status=202, also=((200, schemas.PullPlan),)),
    _control("GET", f"{_HERE}/pulls", pulls.listed, "Downloads, newest first", answer=schemas.Pulls),
    _control("GET", f"{_HERE}/pulls/{{id}}", pulls.show, "One download", answer=schemas.PullStatus),
    _control("POST", f"{_HERE}/pulls/{{id}}/pause", pulls.pause, "Stop it and keep what there is",
             answer=schemas.PullStatus),
    _control("POST", f"{_HERE}/pulls/{{id}}/resume", pulls.resume, "Go on with it", answer=schemas.PullStatus),
    _control("PATCH", f"{_HERE}/pulls/{{id}}", pulls.change, "Its priority and limit",
             body=schemas.PullChange, answer=schemas.PullStatus),
    _control("DELETE", f"{_HERE}/pulls/{{id}}", pulls.cancel, "Forget it and what was fetched", status=204),
    _control("GET", f"{_HERE}/conversations", conversations.listed, "Conversations, newest first",
             answer=schemas.Conversations, query=(Query("search", _TEXT, "Part of the title or of a message"),)),
    _control("POST", f"{_HERE}/conversations", conversations.create, "A new conversation",
             body=schemas.ConversationChange, body_required=False, answer=schemas.Conversation, status=201),
    _control("POST", f"{_HERE}/conversations/import", conversations.import_, "Take in an exported conversation",
             body=msgspec.Raw, answer=schemas.Conversation, status=201),
    _control("GET", _CONVERSATION, conversations.show, "A conversation with all its branches",
             answer=schemas.Conversation),
    _control("PATCH", _CONVERSATION, conversations.change, "Change what is given",
             body=schemas.ConversationChange, answer=schemas.Conversation),
    _control("DELETE", _CONVERSATION, conversations.delete, "Remove a conversation", status=204),
    _control("GET", f"{_CONVERSATION}/export", conversations.export, "A conversation as a file",
             answer=Json, streams=("text/markdown",), query=(Query("format", {"enum": ["json", "md"]}),)),
    _control("POST", f"{_CONVERSATION}/reply", replies.reply,
             "Answer, as it is written: events begun, loading, queued, reasoning, text, finished, error",
             body=schemas.ReplyRequest, body_required=False, streams=EVENTS),
    _control("GET", f"{_HERE}/events", events.events, "What happens in the node, as it happens", streams=EVENTS),
    _control("GET", f"{_HERE}/doctor", node.doctor, "Checks of this machine and node", answer=schemas.Checks),
    _control("GET", f"{_HERE}/settings", node.settings, "All settings, and where each comes from",
             answer=schemas.Settings),
    _control("PUT", f"{_HERE}/settings/{{name}}", node.change_setting, "Change one",
             body=schemas.SettingChange, answer=schemas.Setting),
    _control("DELETE", f"{_HERE}/settings/{{name}}", node.reset_setting, "Back to its default", answer=schemas.Setting),
    _control("GET", f"{_HERE}/keys", node.keys, "Keys, without their secrets", answer=schemas.Keys),
    _control("POST", f"{_HERE}/keys", node.create_key, "A new key, told this once",
             body=schemas.KeyRequest, answer=schemas.NewKey, status=201),
    _control("DELETE", f"{_HERE}/keys/{{id}}", node.revoke_key, "Revoke a key", status=204),
    _control("GET", f"{_HERE}/circles", circles.listed, "Circles of this node", answer=network.Circles),
    _control("POST", f"{_HERE}/circles", circles.create, "A new circle",
             body=network.CircleRequest, answer=network.Circle, status=201),
    _control("POST", f"{_HERE}/circles/join/preview", circles.preview, "What a link says; nothing is sent to anybody",
             body=network.LinkRequest, answer=network.JoinPreview),
    _control("POST", f"{_HERE}/circles/join", circles.join, "Join by a link, until a member has answered",
             body=network.LinkRequest, answer=network.Joined),
    _control("POST", f"{_CIRCLE}/invites", circles.invite, "A link that lets somebody in",
             body=network.InviteRequest, body_required=False, answer=network.Invite, status=201),
    _control("DELETE", f"{_CIRCLE}/invites/{{invite}}", circles.withdraw, "Withdraw an invite", status=204),
    _control("DELETE", f"{_CIRCLE}/members/{{peer:path}}", circles.remove, "Remove a member", status=204),
    _control("GET", _CIRCLE, circles.show, "A circle with its members and invites", answer=network.CircleDetail),
    _control("PATCH", _CIRCLE, circles.rename, "Rename a circle", body=network.CircleChange, answer=network.Circle),
    _control("DELETE", _CIRCLE, circles.leave, "Leave a circle", status=204),
    _control("GET", f"{_HERE}/peers", peers.listed, "Peers, asked just now whether they are there",
             answer=network.Peers),
    _control("PATCH", f"{_HERE}/peers/{{peer:path}}", peers.change, "Name, block or unblock a peer",
             body=network.PeerChange, answer=network.Peer),
    _control("GET", f"{_HERE}/network", peers.network, "How this node stands in the network", answer=network.Network),
    _control("GET", f"{_HERE}/versions", commons.listed, "What circles of this node offer, and what it offers",
             answer=told.Versions),
    _control("GET", f"{_VERSION}/lineage", commons.lineage, "What a version was made from, and what was made from it",
             answer=told.Lineage),
    _control("GET", f"{_VERSION}/envelope", commons.envelope, "Its signed statement, as it is passed on", answer=Json),
    _control("POST", f"{_VERSION}/verify", commons.verify, "Compute its roots, and check all signatures",
             answer=told.VersionDetail),
    _control("GET", f"{_VERSION}/bundle", commons.bundle, "It for the tools of OpenSSF Model Signing",
             answer=told.Bundle),
    _control("POST", f"{_VERSION}/licence", commons.accept_licence, "Agree to its licence, once", status=204),
    _control("POST", f"{_VERSION}/endorse", commons.endorse, "Stand for a version",
             body=told.VoiceRequest, body_required=False, answer=told.Voice, status=201),
    _control("POST", f"{_VERSION}/revoke", commons.revoke, "Take back what is yours, or warn of what is not",
             body=told.VoiceRequest, answer=told.Voice, status=201),
    _control("GET", _VERSION, commons.detail, "Everything about a version", answer=told.VersionDetail),
    _control("POST", f"{_HERE}/share", commons.share, "Publish a model, and give it away in circles",
             body=told.ShareRequest, answer=told.VersionDetail),
    _control("POST", f"{_HERE}/unshare", commons.unshare, "Give it away no more",
             body=told.UnshareRequest, status=204),
    _control("GET", f"{_HERE}/swarm", commons.swarm, "Files that are fetched or given away", answer=told.Swarm),
    _control("PATCH", f"{_HERE}/swarm", commons.change_swarm, "Switch seeding, and its limits",
             body=told.SwarmChange, answer=told.Swarm),
    _control("POST", f"{_HERE}/differences", commons.difference, "Which tensors differ between two models",
             body=told.DifferenceRequest, answer=told.Difference),
    _control("GET", f"{_HERE}/logs", node.logs, "The newest lines of the log", answer=schemas.LogLines,
             query=(Query("after", _COUNT, "Only lines with ids above"),
                    Query("limit", {"type": "integer", "minimum": 1, "maximum": node.MAX_LOG_LINES}))),
    _control("POST", f"{_HERE}/shutdown", node.shutdown, "Stop the node", status=202),
    _control("GET", f"{_HERE}/openapi.json", openapi, "This document", answer=Json),
)  # fmt: skip

OPENAI_ROUTES = (
    _openai("GET", "/v1/models", openai_models.listed, "Models that can be asked"),
    _openai("GET", "/v1/models/{id:path}", openai_models.one, "One model"),
    _openai("POST", "/v1/chat/completions", chat.create, "Answer a conversation",
            body=openai.ChatBody, streams=EVENTS),
    _openai("POST", "/v1/completions", completions.create, "Go on with a text",
            body=openai.CompletionBody, streams=EVENTS),
    _openai("POST", "/v1/embeddings", embeddings.create, "Texts as vectors", body=openai.EmbeddingBody),
    _openai("POST", "/v1/responses", responses.create, "Answer, statelessly", body=openai.ResponseBody, streams=EVENTS),
    _openai("POST", "/v1/messages", anthropic.create, "Answer a conversation, in Anthropic's words",
            body=anthropic.MessagesBody, streams=EVENTS),
    _openai("POST", "/v1/messages/count_tokens", anthropic.count, "How many tokens a conversation has",
            body=anthropic.MessagesBody),
    _openai("POST", "/tokenize", texts.tokenize, "Text to tokens", body=texts.TokenizeBody),
    _openai("POST", "/detokenize", texts.detokenize, "Tokens to text", body=texts.DetokenizeBody),
    _openai("POST", "/apply-template", texts.apply_template, "Messages as the model reads them",
            body=texts.TemplateBody),
)  # fmt: skip

OLLAMA_ROUTES = (
    _ollama("GET", "/api/version", ollama_models.version, "The version of Ollama's API that is spoken here"),
    _ollama("GET", "/api/tags", ollama_models.tags, "Models on this machine"),
    _ollama("GET", "/api/ps", ollama_models.ps, "Models in memory"),
    _ollama("POST", "/api/show", ollama_models.show, "Everything about a model", body=ollama.ShowBody),
    _ollama("POST", "/api/chat", generation.chat_route, "Answer a conversation", body=ollama.ChatBody, streams=LINES),
    _ollama("POST", "/api/generate", generation.generate_route, "Answer a prompt", body=ollama.GenerateBody,
             streams=LINES),
    _ollama("POST", "/api/embed", ollama_embeddings.embed_route, "Texts as vectors", body=ollama.EmbedBody),
    _ollama("POST", "/api/embeddings", ollama_embeddings.embeddings_route, "A text as a vector",
            body=ollama.EmbeddingsBody),
    _ollama("POST", "/api/pull", pull.pull, "Download a model", body=ollama.PullBody, streams=LINES),
    _ollama("DELETE", "/api/delete", ollama_models.delete, "Remove a model", body=ollama.Named, answer=None),
    _ollama("POST", "/api/copy", ollama_models.copy, "Give a model another name", body=ollama.CopyBody, answer=None),
    _ollama("POST", "/api/create", ollama_models.create, "Make a model from another", body=ollama.CreateBody,
            streams=LINES),
)  # fmt: skip

OTHER_ROUTES = (
    Route("GET", "/", page.front, "", "nothing"),
    Route("GET", "/health", health, "", "nothing"),
    Route("GET", "/metrics", metrics, "", "infer"),
)

ROUTES: tuple[Route, ...] = (*CONTROL_ROUTES, *OPENAI_ROUTES, *OLLAMA_ROUTES, *OTHER_ROUTES)

PAGE_ROUTE = Route("GET", "/{file:path}", page.static, "", "nothing")
"""Whatever else there is, is a file of the page, or nothing."""
