/**
 * Every word of the page. `{name}` is filled in; a text with `one` and `other` is chosen by `n`.
 * The same words as in the command line and the errors.
 */

import { count, plural } from "./format.js";

/** @typedef {string | {one: string, other: string}} Text */

/** @type {Record<string, Record<string, Text>>} */
const STRINGS = {
  ui: {
    cancel: "Cancel", close: "Close", copied: "Copied", copy: "Copy", copy_error: "Copy this error",
  },
  error: {
    unknown: "The node answered with status {status} and no reason.",
    unreachable: "The node does not answer.",
    unreachable_hint: "If it was stopped, start it with `pares up`.",
    page: "Something on this page went wrong: {fault}",
  },
  rail: {
    label: "Main", home: "Pares: to the chat", skip: "Skip to the content", title: "{title} · Pares",
    chat: "Chat", models: "Models", inspect: "Inspect", settings: "Settings",
  },
  node: {
    connecting: "Connecting", gone: "Not reachable", ready: "Ready", offline: "Ready, offline", idle: "No model in memory",
    loaded: { one: "{n} model in memory, {memory}", other: "{n} models in memory, {memory}" },
    bar: "The node stopped or was restarted. Start it with `pares up`.",
    retrying: "Retrying in {n} s.", retry_now: "Retry now",
  },
  keys: {
    title: "Keyboard", enter_key: "Enter", enter: "Send", newline_key: "Shift + Enter", newline: "New line",
    up_key: "↑", up: "Edit your last message, when nothing is written", escape_key: "Esc", escape: "Stop the answer",
    find_key: "Ctrl + K", find: "Search the conversations", new_key: "Ctrl + Shift + O", new: "New conversation",
    write_key: "/", write: "Go to where you write", help_key: "?", help: "This list",
  },
  login: {
    title: "Who is asking?",
    text: "This page belongs to whoever owns the node. Run `pares up` or `pares status --url` on its machine and open the address it prints, or paste the token from that address here.",
    token: "Token", go: "Open", wrong: "The node does not know this token.",
    wrong_hint: "A token from an address works once; `pares status --url` prints a new one.",
  },
  welcome: {
    title: "This PC can run open models by itself.",
    text: "A model is a file. Once it is here, it needs no account and no connection: what you write and what it answers stay on this machine.",
    machine: "This PC", memory: "Memory", free: "{n} free now", processor: "Processor", cores: { one: "{n} core", other: "{n} cores" },
    graphics: "Graphics", no_gpu: "None found", gpu: "Found", no_gpu_needed: "Not needed", disk: "Disk", disk_free: "free",
    models: "Models that can be had, by how they fit", card: "{size} · {parameters} parameters · {quantization} · {licence}",
    start: "Start chatting", get: "Fetch and chat", get_base: "Fetch and try", start_with: "Start with {title}", minute: "Usually under a minute",
    have_gguf: "I have a GGUF file", by_address: "Get one by its address",
    promise: "No account, no telemetry, no update check. The only thing fetched is the model you choose.",
    offline: "This node is set to stay offline, so nothing can be fetched.",
    offline_hint: "Use a GGUF file that is here already, or turn the setting off with `pares config set swarm.offline false`.",
    nothing_fits: "None of these models fits this machine.", nothing_fits_hint: "Close what uses memory, or bring a smaller GGUF file.",
    way: "On the way to {title}", getting: "Fetching {title}", checking: "Checking every byte",
    checking_hint: "The SHA-256 of the file must be the one in the catalogue.", loading: "Loading into memory", loading_starts: "Starting",
    pull_hint: "What was fetched is kept; trying again goes on from there.", cancelled: "The download was cancelled.", back: "Back",
  },
  fit: {
    "runs well": "Runs well", tight: "Tight", "needs more machines": "Needs more machines", "will not run": "Will not run",
    open: "{fit}: show the sum", title: "What it takes in memory", weights: "Weights", kv_cache: "Cache for {n} tokens of context",
    buffers: "Buffers", total: "Together", free: "Free now", largest_context: "Largest context that fits", tokens: "{n} tokens",
  },
  pull: {
    queued: "Waiting its turn", checking: "Checking", fetching: "Fetching", verifying: "Verifying", done: "Here", paused: "Paused", failed: "Failed",
    of: "{done} of {total}", rate: "{rate}/s", left: "about {time} left", from: "from {origin}", progress_of: "Download of {name}",
    pause: "Pause", resume: "Resume", try_again: "Try again", cancel: "Cancel", clear: "Clear", cancelled: "{name}: download cancelled, its part removed.",
    none: "Nothing is being fetched.",
  },
  picker: {
    label: "Model: {model}", none: "No model", in_memory: "In memory", here: "On this PC", offered: "Can be fetched", all: "All models",
    loaded: "ready", loading: "loading, {share}", on_disk: "on disk", not_here: "not here yet", coming: "fetching, {share}", get: "Fetch {name}, {size}",
  },
  where: {
    badge: "This PC", open: "Runs on this PC: what that means", title: "Runs on this PC",
    text: "The model is on this computer and the answer is computed here. Nothing you write in this chat leaves the machine.",
    computed: "Computed by", process: "process {pid}, {threads} threads, {memory} of memory", not_loaded: "loads with your first message",
    readers: "Who can read it", you: "you, and whoever uses your account on this PC", kept: "Kept",
    nowhere: "nowhere: it is gone when you leave it", in_home: "in {home}", checked: "Checked", no_check: "nothing to check, no other machine takes part",
    listening: "This node also answers other machines that have a key. They cannot see your conversations.",
  },
  list: {
    label: "Conversations", toggle: "Conversations", new: "New chat", search: "Search", today: "Today", yesterday: "Yesterday", week: "Last 7 days",
    older: "Older", untitled: "Untitled", answering: "being answered", more: "More for {title}", none: "Your conversations will be listed here.",
    none_found: "No conversation has these words.", rename: "Rename", rename_title: "Rename the conversation", title: "Title",
    export_md: "Export as Markdown", export_json: "Export as JSON", delete: "Delete", delete_title: "Delete this conversation?",
    delete_text: { one: "“{title}” and its {n} message are removed from this PC. This cannot be undone.",
      other: "“{title}” and its {n} messages are removed from this PC. This cannot be undone." },
    deleted: "“{title}” was deleted.", temporary: "Temporary chat", import: "Import a conversation",
    import_wrong: "{file} is not JSON.", import_hint: "Choose a file that was exported as JSON.",
  },
  chat: {
    new_title: "New chat", log: "Conversation", you: "You", answer_of: "Answer of {model}", this_pc: "this PC",
    hello: "What would you like to know?", hello_text: "The model runs on this PC. What you write stays here.",
    hello_temporary: "A chat that is kept nowhere.", temporary_text: "It is gone when you leave it or reload the page.", temporary: "Temporary",
    base_model: "This is a base model: it goes on with a text instead of answering.",
    starters: "Explain in three sentences why the sky is blue.\nWrite a short poem about a lighthouse.\nSuggest five names for a small bakery.\nWrite a Python function that counts the words in a text.",
    base_starters: "Once upon a time, in a village by the sea,\nThe three most common uses of copper are\ndef fibonacci(n):\nDear neighbours,",
    send: "Send", stop: "Stop", stop_hint: "Stop (Esc)", keys: "Enter sends, Shift + Enter starts a new line",
    write_label: "Your message", write_to: "Write to {model}", no_model: "Choose a model first", context: "{used} of {room} tokens",
    context_hint: "How much of the model's context this conversation takes", to_end: "To the end",
    edit: "Edit", edit_label: "Edit your message", edit_hint: "The first version stays.", copy_message: "Copy the message",
    copy_answer: "Copy the answer", retry: "Try again", go_on: "Continue", versions: "Versions", older_version: "Older version", newer_version: "Newer version",
    thought: "What it thought first", thinking: "Thinking, {n} words so far",
    tokens: { one: "{n} token", other: "{n} tokens" }, speed: "{n} tokens/s", stopped_word: "stopped",
    loading: "Loading {model} into memory: {share}", queued: { one: "Waiting for a place: you are next", other: "Waiting for a place: {n} are before you" },
    reading: "{model} is reading", how_made: "How this answer was made", made_where: "Computed on", made_model: "Model", made_read: "Read",
    made_wrote: "Wrote", made_first: "First word after", made_speed: "Speed", made_seed: "Seed", made_when: "When",
    answered: "{model} answered: {text}", stopped: "The answer was stopped.", failed: "The answer failed.",
    cut_off: "The node ended the answer without a last word.", stopped_early: "Stopped before the answer began.",
    unanswered: "There is no answer to this yet.", answer_now: "Answer it", run_doctor: "Look with the doctor", get_model: "Get a model",
  },
  drawer: {
    title: "How it answers", own: "default", system: "System prompt", system_hint: "Read by the model before every conversation turn.",
    system_example: "You are a patient teacher.", temperature: "Temperature", temperature_hint: "0 always takes the likeliest word; higher is freer.",
    top_p: "Top-p", top_p_hint: "Keep the likeliest words up to this share.", top_k: "Top-k", top_k_hint: "Keep this many words; 0 keeps all.",
    min_p: "Min-p", min_p_hint: "Drop words far less likely than the best.", repeat_penalty: "Repeat penalty", repeat_penalty_hint: "Above 1 avoids repetition.",
    seed: "Seed", seed_hint: "The same seed gives the same draw.", max_tokens: "Longest answer", max_tokens_hint: "In tokens.",
    between: "Between {min} and {max}.", thinking: "Thinking", thinking_on: "on", thinking_off: "off", thinking_hint: "For models that can.",
    stop: "Stop at", stop_hint: "One per line. The answer ends before it.", schema: "JSON schema", schema_hint: "The answer is JSON of this schema, enforced.",
    schema_wrong: "This is not JSON yet: {fault}", schema_object: "A schema is a JSON object.", context: "Context",
    context_now: "Loaded with room for {n} tokens.", context_later: "As large as fits, when it is loaded.", context_change: "Load with another", reset: "Back to defaults",
  },
  load: {
    title: "Load {name}", context: "Context, in tokens", context_own: "as large as fits", context_hint: "Prompt and answer together.",
    largest: "Up to {n} fit in what is free now.", too_long: "Only {n} fit in what is free now. You can try all the same.",
    profile: "Arithmetic", fast: "Fast", fast_hint: "llama.cpp's defaults. The same request gives the same text up to rounding.",
    exact: "Exact", exact_hint: "The same seed gives the same text to the last bit, alone or beside others. About a tenth slower.",
    stay: "Stays in memory", stay_default: "as the settings say", stay_5min: "5 minutes after its last use", stay_1h: "1 hour after its last use",
    stay_always: "until you unload it", loading: "Loading: {share}", progress: "Loading into memory", go: "Load", again: "Load again",
  },
  add: {
    title: "Add a model", label: "Name or address", hint: "A name of the catalogue, an https:// address of a GGUF file, or hf:owner/repo/file.gguf. Nothing is fetched before you have seen what it takes.",
    look: "See what it takes", size: "Size", unknown: "not told before the download", disk: "Disk", disk_of: "{needed} needed, {free} free",
    fits: "fits", too_big: "does not fit", memory: "Memory", memory_later: "known once its header is here", licence: "Licence", licence_unknown: "not stated",
    hash_unknown: "not known beforehand", get: "Fetch {size}", get_unknown: "Fetch", copy_command: "Copy the command", import_open: "Use a GGUF file that is on this PC already",
    import_title: "Use a file that is here", import_text: "The file stays where it lies and is never copied, changed or deleted by Pares. A folder brings in every GGUF file below it.",
    path: "Path of a file or folder", import: "Import", imported: { one: "{n} model imported: {names}", other: "{n} models imported: {names}" },
  },
  models: {
    title: "Models", tab_here: "On this PC", tab_catalogue: "Catalogue", tab_downloads: "Downloads", room: "{memory} of memory and {disk} of disk free",
    loading: "Loading: {share}", memory: "{n} in memory", context: "{n} tokens of context", fast: "fast", exact: "exact",
    answering: { one: "answering {n}, {waiting} waiting", other: "answering {n}, {waiting} waiting" }, expires: "unloads {when} if unused", stays: "stays loaded",
    load: "Load", unload: "Unload", load_with: "Load with options", chat: "Chat", inspect: "Inspect", verify: "Verify", delete: "Delete", more: "More for {name}",
    loaded_note: "{name} is ready, {memory} in memory.", unloaded_note: "{name} was unloaded, {memory} of memory are free again.",
    verified: "{name} is what it should be: SHA-256 {hash}…", deleted: "{name} was deleted, {size} are free again.", unlinked: "{name} was taken off the list. Its file stays.",
    delete_title: "Remove {name}?", delete_text: "The file is deleted: {size} of disk are freed. It can be fetched again.",
    unlink: "Take off the list", unlink_text: "It is taken off the list. Its file ({size}) lies outside of Pares' folder and stays where it is.",
    parameters: "{n} parameters", linked: "linked, not copied", kind_adapter: "adapter", kind_alias: "another name", kind_created: "made here",
    missing: "The file of this model is gone.", missing_hint: "Put it back where it was, or remove the model from the list.", broken_hint: "Delete it and fetch it again.",
    none: "There are no models on this PC yet. The smallest that can be fetched takes {size}.", none_at_all: "There are no models on this PC yet.", see_catalogue: "See the catalogue",
    starter: "starter", here: "on this PC", get: "Fetch",
  },
  inspect: {
    title: "Inspect", which: "Model", parts: "Parts of {name}", none: "There are no models on this PC yet.", tab_overview: "Overview", tab_tensors: "Tensors",
    tab_tokenizer: "Tokenizer", tab_template: "Template", tab_file: "Licence and file", key: "Key", value: "Value",
    parameters: "Parameters", layers: "Layers", width: "Width", width_hint: "numbers per token", vocabulary: "Vocabulary", vocabulary_hint: "tokens",
    context: "Trained context", context_hint: "tokens", size: "Size", can: "What it can do", can_chat: "chat", can_completion: "go on with a text", can_embedding: "embed",
    can_tools: "use tools", can_thinking: "think first", can_insert: "fill in the middle", exact_title: "Exactness on this PC",
    exact_unknown: "It is measured when the model is loaded.", measure: "Load and measure", profile: "Arithmetic", exactness: "Exactness", is_exact: "exact here", not_exact: "not exact here",
    exact_text: "A request gives the same bits alone or beside others.", fingerprint: "Kernel fingerprint", no_fingerprint: "not measured", copy_fingerprint: "Copy the fingerprint",
    made_of: "Made of", alias_of: "Another name of", base: "Base", adapter: "Adapter", facts: "What the file says",
    no_template: "The file has no chat template: it is a base model. Pares uses a plain one and says so.",
    template_text: "How messages become the text that the model reads. It comes with the model, runs in a sandbox, and is shown here as it is.",
    template: "Template {name}", copy_template: "Copy template {name}", path: "File", copy_path: "Copy the path", origin: "Came from", no_origin: "not known", added: "Added",
    bytes: "{n} bytes", hashing: "being computed", copy_hash: "Copy the hash", licence: "Licence", licence_text: "Text of the licence", verifying: "Reading every byte",
  },
  tensors: {
    block: "{name} · {type} · {shape} · {parameters} numbers · {size}", type: { one: "{type}: {n} tensor, {size}", other: "{type}: {n} tensors, {size}" },
    map_label: "{n} tensors in {layers} layers, drawn to scale; the table below says the same", outside: "other", only: "Only {label} in the table",
    scale: "Layers, at {n} times the scale of the row above", look: "Point at a block to read it; the table has every one.", table: "All tensors",
    filter: "Filter: name, type, or layer:3", found: "{n} of {all}, {size}", name: "Name", kind: "Type", shape: "Shape", elements: "Numbers", size: "Size", offset: "Offset",
    all: "Show all {n}", reading: "Reading the header",
  },
  tokens: {
    title: "Tokens", search: "Search the tokens", range: "{from} to {to} of {total}", none: "No token has this text.", back: "Tokens before these", forward: "Tokens after these",
    id: "Number", text: "Text", bytes: "Bytes", kind: "Kind",
  },
  settings: {
    title: "Settings", tab_settings: "Settings", tab_tools: "Other tools", tab_keys: "Keys", tab_doctor: "Doctor", tab_log: "Log", look: "This page", theme: "Appearance",
    theme_system: "As the system", theme_light: "Light", theme_dark: "Dark", empty: "empty", restart: "What you set here is kept in the home of the node and takes effect when it is started again.", live: "Takes effect at once.", saved: "{name} was saved.",
    saved_restart: "{name} was saved. It takes effect when the node is restarted.", back: "{name} is back at its default.", from_default: "default", from_file: "set here",
    from_environment: "set by the environment", from_flag: "set on the command line", reset: "Back to {value}", fixed_environment: "Change {name} to change it.",
    fixed_flag: "Start the node without the flag to change it.", variable: "Environment variable: {name}", about: "About this node", version: "Version", home: "Home",
    address: "Address", running: "Running", running_for: "for {time}, process {pid}, {memory} of memory", copy: "Copy: {name}",
    promise: "Pares has no account, sends no telemetry and looks for no updates. Prompts are never logged.",
    open_door: "This node answers other machines without asking for a key.", open_door_hint: "Turn on require key, or listen on 127.0.0.1 only.",
  },
  keys_page: {
    text: "Programs on this PC need no key, unless you ask for one. Other machines always do. A key is shown once; the node keeps its hash.",
    name: "What is it for?", example: "Editor on the laptop", make: "Make a key", admin: "May also change this node", admin_hint: "models, settings, keys, conversations",
    fresh: "Key for {name}", fresh_hint: "Copy it now: it cannot be shown again.", copy: "Copy the key", have_it: "I have it", none: "There are no keys.",
    scope_infer: "use models", scope_admin: "change the node", revoked: "revoked", made: "made {when}", used: "last used {when}", unused: "never used",
    revoke: "Revoke", revoke_named: "Revoke the key for {name}?", revoke_text: "Programs that use it are refused from now on. This cannot be undone.", revoked_note: "The key for {name} was revoked.",
  },
  tools: {
    text: "Every program that speaks the OpenAI or the Ollama API can use this node unchanged.", no_key: "No key is needed on this PC; programs that insist on one take any.",
    key_needed: "This node asks for a key.", make_key: "Make a key", your_model: "YOUR_MODEL", copy: "Copy: {name}", openai: "OpenAI API",
    openai_text: "Chat, completions, embeddings and responses. Give the program this base URL.", base_url: "Base URL", environment: "Environment",
    ollama: "Ollama API", ollama_text: "For programs that look for Ollama. Those that insist on port 11434 find it there after `pares up --ollama-port 11434`.",
    host: "Host", control: "This node's own API", control_text: "What this page and the command line use.", document: "OpenAPI document",
  },
  doctor: {
    looking: "Looking.", result: { one: "{n} thing to look at.", other: "{n} things to look at." }, again: "Look again", copy: "Copy the report",
    ok: "well", warning: "worth a look", problem: "a problem",
  },
  log: { text: "What the node has been doing. Prompts and answers are never written here.", title: "Log", copy: "Copy the log", none: "Nothing yet." },
  markdown: {
    code: "text", code_in: "Code, {name}", copy_code: "Copy the code", task: "Done", table: "Table", image: "[image, not loaded: {text} {address}]",
  },
};

/** A text by its name, `part.name`. @param {string} name @param {Record<string, string | number>} [values] */
export function t(name, values = {}) {
  const dot = name.indexOf(".");
  const text = STRINGS[name.slice(0, dot)]?.[name.slice(dot + 1)];
  if (text === undefined) throw new Error(`There is no text named ${name}.`);
  const form = typeof text === "string" ? text : text[plural(Number(values.n)) === "one" ? "one" : "other"];
  return form.replace(/\{(\w+)\}/g, (_, key) => {
    const value = values[key] ?? "";
    return typeof value === "number" ? count(value) : value;
  });
}
