-- Circles that this node belongs to, what was said in them, whom it invited, and what it knows of its peers.

CREATE TABLE circles (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL DEFAULT '',   -- the owner's own; empty: the circle's
    joined_at INTEGER NOT NULL       -- Unix time
) STRICT;

CREATE TABLE statements (
    circle BLOB NOT NULL REFERENCES circles (id) ON DELETE CASCADE,
    name BLOB NOT NULL,              -- digest of author and body
    label TEXT NOT NULL,
    body BLOB NOT NULL,
    author BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (circle, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE invites (
    id BLOB PRIMARY KEY,
    circle BLOB NOT NULL REFERENCES circles (id) ON DELETE CASCADE,
    secret BLOB NOT NULL,            -- emptied when the invite is used up
    role TEXT NOT NULL,
    made INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    uses_left INTEGER NOT NULL,
    joined TEXT NOT NULL DEFAULT '[]' -- JSON: hex ids of who came in by it
) STRICT;

CREATE TABLE peers (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL DEFAULT '',   -- the owner's own; empty: theirs
    blocked INTEGER NOT NULL DEFAULT 0,
    address TEXT NOT NULL DEFAULT '',-- where it answered last
    seen INTEGER NOT NULL DEFAULT 0  -- Unix time of that
) STRICT;
