/**
 * The shapes of the control API, as `pares/api/schemas.py`, `network.py` and `commons.py` state them. A test keeps the
 * two alike.
 *
 * @typedef {"runs well" | "tight" | "needs more machines" | "will not run"} Fit
 *
 * @typedef {{name: string, system: string, processor: string, instruction_set: string, cores: number,
 *   cores_busy: number, memory_total: number, memory_free: number, disk_free: number, gpus: string[]}} Machine
 *
 * @typedef {{name: string, state: "loading" | "ready" | "stopping", profile: "fast" | "exact", exact: string,
 *   fingerprint: string, memory_bytes: number, context: number, threads: number, running: number, waiting: number,
 *   sequences: number, tokens_per_s: number, pid: number, progress: number, expires_at: string | null,
 *   adapters: string[]}} Loaded
 *
 * @typedef {{version: string, ready: boolean, pid: number, home: string, url: string, uptime_s: number,
 *   offline: boolean, listening_beyond_this_machine: boolean, key_required: boolean, memory_bytes: number,
 *   machine: Machine, loaded: Loaded[], pulls_active: number, models: number,
 *   passing: boolean, id: string, words: string, circles: number,
 *   network: "alone" | "connecting" | "connected" | "offline", peers_online: number}} NodeStatus
 *
 * @typedef {{weights: number, kv_cache: number, buffers: number, total: number, free: number, context: number,
 *   largest_context: number, text: string}} Need
 *
 * @typedef {{name: string, kind: "model" | "adapter" | "alias" | "created", size: number, quantization: string,
 *   parameters: number, architecture: string, licence: string, added_at: string, linked: boolean, missing: boolean,
 *   loaded: boolean, fit: Fit, need: Need | null, broken: string}} ModelRow
 *
 * @typedef {{name: string, type: string, shape: number[], elements: number, size: number, offset: number,
 *   layer: number}} TensorRow
 *
 * @typedef {{row: ModelRow, path: string, sha256: string, origin: string, context_trained: number, layers: number,
 *   embedding_length: number, vocabulary: number, facts: Record<string, unknown>, tokenizer: Record<string, unknown>,
 *   templates: Record<string, string>, capabilities: string[], licence_text: string, system: string,
 *   parameters: Record<string, unknown>, alias_of: string, base: string, adapter: string}} ModelDetail
 *
 * @typedef {{name: string, title: string, description: string, size: number, quantization: string,
 *   parameters: number, licence: string, chat: boolean, here: boolean, fit: Fit, need: Need,
 *   starter: boolean}} CatalogueRow
 *
 * @typedef {{id: string, source: string, name: string,
 *   state: "queued" | "checking" | "fetching" | "verifying" | "done" | "paused" | "failed", bytes: number,
 *   total: number, bytes_per_s: number, eta_s: number | null, origin: string, error: string, code: string,
 *   created_at: string, layers: string, priority: number, limit_bytes_per_s: number, version: string}} PullStatus
 *
 * @typedef {{source: string, name: string, size: number, disk_needed: number, disk_free: number, sha256: string,
 *   licence: string, fits_disk: boolean, fit: Fit | null, need: Need | null, version: string,
 *   licence_text: string, licence_accepted: boolean, holders: number}} PullPlan
 *
 * @typedef {{name: string, bytes_freed: number}} Removed
 *
 * @typedef {{id: string, parent_id: string | null, role: "system" | "user" | "assistant", content: string,
 *   reasoning: string, model: string, state: "complete" | "stopped" | "failed", created_at: string,
 *   prompt_tokens: number, generated_tokens: number, tokens_per_s: number, first_token_s: number,
 *   seed: number | null, error: string}} MessageNode
 *
 * @typedef {{id: string, title: string, model: string, created_at: string, updated_at: string,
 *   messages: number}} ConversationRow
 *
 * @typedef {{temperature?: number | null, top_p?: number | null, top_k?: number | null, min_p?: number | null,
 *   repeat_penalty?: number | null, seed?: number | null, max_tokens?: number | null, stop?: string[],
 *   thinking?: boolean | null, schema?: Record<string, unknown> | null}} ChatSettings
 *
 * @typedef {{row: ConversationRow, system: string, settings: ChatSettings, leaf: string | null,
 *   messages: MessageNode[]}} Conversation
 *
 * @typedef {{parent_id?: string | null, content?: string | null, model?: string | null,
 *   go_on?: boolean}} ReplyRequest
 *
 * @typedef {{id: string, name: string, scopes: ("infer" | "admin")[], created_at: string,
 *   last_used_at: string | null, revoked: boolean}} Key
 *
 * @typedef {{key: string, info: Key}} NewKey
 *
 * @typedef {{name: string, value: unknown, default: unknown, source: "default" | "file" | "environment" | "flag",
 *   description: string, restart_needed: boolean, environment: string}} Setting
 *
 * @typedef {{name: string, state: "ok" | "warning" | "problem", message: string, hint: string}} Check
 *
 * @typedef {"founder" | "member" | "guest"} Role
 *
 * @typedef {{id: string, name: string, words: string}} Who
 *
 * @typedef {{id: string, name: string, words: string, role: Role, you: boolean, invited_by: string, since: string,
 *   online: boolean}} Member
 *
 * @typedef {{id: string, name: string, title: string, role: Role, open: boolean, internet: boolean, founder: Who,
 *   members: number, online: number, since: string, can_invite: boolean}} Circle
 *
 * @typedef {{id: string, circle: string, link: string, qr: string, role: "member" | "guest", expires_at: string,
 *   uses_left: number, joined: Who[]}} Invite
 *
 * @typedef {{circle: Circle, members: Member[], invites: Invite[]}} CircleDetail
 *
 * @typedef {{circle: string, name: string, open: boolean, inviter: Who, role: "member" | "guest", expires_at: string,
 *   shares: string[], already: boolean}} JoinPreview
 *
 * @typedef {{circle: Circle, seconds: number}} Joined
 *
 * @typedef {{id: string, name: string, words: string, online: boolean, path: "direct" | "relayed" | "lan" | "",
 *   rtt_ms: number | null, since: string | null, circles: string[], offers: string[], version: string,
 *   clock_offset_s: number | null, blocked: boolean, reason: string}} Peer
 *
 * @typedef {{way: "last address" | "lan" | "introduction" | "dht" | "relay",
 *   state: "works" | "untried" | "off" | "fails", message: string}} WayState
 *
 * @typedef {{id: string, words: string, name: string,
 *   reachable: "yes" | "relay only" | "not from outside" | "unknown" | "offline" | "alone", message: string,
 *   hint: string, nat: "none" | "friendly" | "symmetric" | "unknown", relay: string, relaying: boolean,
 *   ways: WayState[], peers_online: number}} Network
 *
 * @typedef {"base" | "quantized" | "finetune" | "adapter" | "merge"} Kind
 *
 * @typedef {"whole" | "part" | "no"} Here
 *
 * @typedef {{id: string, name: string, label: string, kind: Kind, publisher: Who, licence: string,
 *   architecture: string, parameters: number, quantization: string, layers: number, size: number, created: string,
 *   circles: string[], holders: number, whole: number, online: number, complete: boolean, here: Here, model: string,
 *   shared: string[], endorsements: number, conflict: boolean, trouble: string, fit: Fit | null,
 *   need: Need | null}} VersionRow
 *
 * @typedef {{peer: Who, online: boolean, layers: [number, number] | null, head: boolean, you: boolean}} Holder
 *
 * @typedef {{name: string, root: string, sha256: string, size: number, here: Here}} VersionFile
 *
 * @typedef {{id: string, kind: "endorsement" | "warning" | "revocation", by: Who, at: string, text: string,
 *   withdrawn: boolean, yours: boolean}} Voice
 *
 * @typedef {{what: string, ok: boolean | null, message: string}} Finding
 *
 * @typedef {{row: VersionRow, predicate: Record<string, unknown>, licence_text: string, licence_accepted: boolean,
 *   files: VersionFile[], holders: Holder[], voices: Voice[], findings: Finding[]}} VersionDetail
 *
 * @typedef {{id: string, name: string, kind: Kind | null, publisher: Who | null, known: boolean, here: Here,
 *   troubles: string[]}} LineageNode
 *
 * @typedef {{child: string, parent: string, relation: Kind,
 *   state: "checked" | "stated" | "missing" | "wrong" | "cycle" | "revoked", message: string}} LineageEdge
 *
 * @typedef {{of: string, nodes: LineageNode[], edges: LineageEdge[]}} Lineage
 *
 * @typedef {{peer: Who | null, address: string, kind: "peer" | "tunnel" | "web", have: number,
 *   down_bytes_per_s: number, up_bytes_per_s: number, downloaded: number, uploaded: number}} Source
 *
 * @typedef {{root: string, name: string, versions: string[], size: number, piece_bytes: number, pieces: string,
 *   state: "checking" | "fetching" | "seeding" | "paused" | "failed", done: number, wanted: number,
 *   down_bytes_per_s: number, up_bytes_per_s: number, downloaded: number, uploaded: number, wasted: number,
 *   sources: Source[], pull: string, code: string, error: string}} TorrentRow
 *
 * @typedef {{seeding: boolean, upload_limit: number, download_limit: number, port: number, downloaded: number,
 *   uploaded: number, kept_bytes: number, keep_bytes: number, torrents: TorrentRow[]}} Swarm
 *
 * @typedef {{name: string, type: string, shape: number[], size: number, sampled: number, least: number, most: number,
 *   mean: number, deviation: number, zeros: number, odd: number, histogram: number[]}} TensorStatistics
 *
 * @typedef {{name: string, layer: number,
 *   state: "equal" | "changed" | "retyped" | "reshaped" | "only left" | "only right",
 *   relative: number | null}} TensorDifference
 *
 * @typedef {{layer: number, relative: number, changed: number, tensors: number}} LayerDifference
 *
 * @typedef {{left: string, right: string, equal: number, changed: number, layers: LayerDifference[],
 *   tensors: TensorDifference[]}} Difference
 *
 * @typedef {{message: string, type: string, code: string, param: string | null, hint: string,
 *   fields: Record<string, unknown>}} ErrorBody
 */
export {};
