-- Files by content, versions and what is said of them, and in which circles they are given away.

ALTER TABLE models ADD COLUMN root TEXT NOT NULL DEFAULT '';  -- hex merkle root of its file; empty while unknown

CREATE TABLE files (
    root BLOB PRIMARY KEY,               -- merkle root (BEP 52)
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL DEFAULT '',     -- hex; empty of what is not whole
    path TEXT NOT NULL,
    linked INTEGER NOT NULL DEFAULT 0,   -- it lies where its owner put it: never moved, never deleted
    layer BLOB NOT NULL DEFAULT x'',     -- hashes of its pieces
    stamp TEXT NOT NULL DEFAULT '',      -- what its file looked like when it was hashed: size, time of change, inode
    pieces_json TEXT NOT NULL DEFAULT 'null', -- runs of pieces that are here, [[first, after last], ...]; null: all
    keeper INTEGER NOT NULL DEFAULT 0,   -- fetched by itself because too few members held it
    added_at TEXT NOT NULL,
    used_at TEXT NOT NULL                -- last loaded, fetched or asked for
) STRICT;

CREATE TABLE version_statements (
    digest BLOB PRIMARY KEY,             -- SHA-256 of the payload
    kind TEXT NOT NULL CHECK (kind IN ('version', 'endorsement', 'revocation')),
    version BLOB NOT NULL,               -- the digest of the version that it is, or is about
    author BLOB NOT NULL,
    envelope BLOB NOT NULL,
    seen_at TEXT NOT NULL
) STRICT;
CREATE INDEX version_statements_by_version ON version_statements (version);

CREATE TABLE shares (
    version BLOB NOT NULL,
    circle BLOB NOT NULL REFERENCES circles (id) ON DELETE CASCADE,
    PRIMARY KEY (version, circle)
) STRICT, WITHOUT ROWID;

CREATE TABLE accepted_licences (
    licence TEXT PRIMARY KEY,            -- hex SHA-256 of the text, or the SPDX expression where there is none
    accepted_at TEXT NOT NULL
) STRICT;

CREATE TABLE traffic (
    root BLOB PRIMARY KEY,
    downloaded INTEGER NOT NULL DEFAULT 0,
    uploaded INTEGER NOT NULL DEFAULT 0
) STRICT;

ALTER TABLE pulls ADD COLUMN layers TEXT NOT NULL DEFAULT '';     -- header, head, 'A-B', or empty for the whole
ALTER TABLE pulls ADD COLUMN priority INTEGER NOT NULL DEFAULT 1; -- 0 low, 1 normal, 2 high
ALTER TABLE pulls ADD COLUMN limit_bytes_per_s INTEGER NOT NULL DEFAULT 0;
