/**
 * The shapes of the control API, as `pares/api/schemas.py` and `network.py` state them. A test keeps the two alike.
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
 *   created_at: string}} PullStatus
 *
 * @typedef {{source: string, name: string, size: number, disk_needed: number, disk_free: number, sha256: string,
 *   licence: string, fits_disk: boolean, fit: Fit | null, need: Need | null}} PullPlan
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
 * @typedef {{message: string, type: string, code: string, param: string | null, hint: string,
 *   fields: Record<string, unknown>}} ErrorBody
 */
export {};
