-- Times are ISO 8601 in UTC, sizes are bytes, columns named *_json hold JSON text.

CREATE TABLE models (
    name TEXT PRIMARY KEY COLLATE NOCASE,
    kind TEXT NOT NULL CHECK (kind IN ('model', 'adapter', 'alias', 'created')),
    path TEXT NOT NULL DEFAULT '',
    linked INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0,
    sha256 TEXT NOT NULL DEFAULT '',
    origin TEXT NOT NULL DEFAULT '',
    licence TEXT NOT NULL DEFAULT '',
    architecture TEXT NOT NULL DEFAULT '',
    parameters INTEGER NOT NULL DEFAULT 0,
    quantization TEXT NOT NULL DEFAULT '',
    base TEXT NOT NULL DEFAULT '' COLLATE NOCASE,
    adapter TEXT NOT NULL DEFAULT '' COLLATE NOCASE,
    system TEXT NOT NULL DEFAULT '',
    defaults_json TEXT NOT NULL DEFAULT '{}',
    added_at TEXT NOT NULL
) STRICT;

CREATE TABLE pulls (
    id TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    name TEXT NOT NULL COLLATE NOCASE,
    state TEXT NOT NULL
        CHECK (state IN ('queued', 'checking', 'fetching', 'verifying', 'done', 'paused', 'failed')),
    bytes INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0,
    origin TEXT NOT NULL DEFAULT '',
    identity TEXT NOT NULL DEFAULT '',
    code TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    model TEXT NOT NULL,
    system TEXT NOT NULL,
    settings_json TEXT NOT NULL,
    leaf TEXT REFERENCES messages (id) DEFERRABLE INITIALLY DEFERRED,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;
CREATE INDEX conversations_by_time ON conversations (updated_at);

CREATE TABLE messages (
    id TEXT PRIMARY KEY,
    conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    -- No cascade: sqlite follows at most 1000 levels of it, and a conversation may be longer.
    parent_id TEXT REFERENCES messages (id) DEFERRABLE INITIALLY DEFERRED,
    role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    content TEXT NOT NULL,
    reasoning TEXT NOT NULL,
    model TEXT NOT NULL,
    sampling_json TEXT NOT NULL,
    usage_json TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('complete', 'stopped', 'failed')),
    error TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX messages_of_conversation ON messages (conversation_id);
CREATE INDEX messages_by_parent ON messages (parent_id);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL UNIQUE,
    scopes_json TEXT NOT NULL,
    created_at TEXT NOT NULL,
    last_used_at TEXT,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT;

-- How often the node has started: the high part of event ids, so that they never repeat.
CREATE TABLE starts (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    count INTEGER NOT NULL
) STRICT;
INSERT INTO starts VALUES (1, 0);
