-- Whose nodes these are; every other table belongs to one of them. `counter` numbers its revisions.
CREATE TABLE tenants (
    id TEXT PRIMARY KEY,
    counter INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL
) STRICT;

-- Nodes that are meant together: by their labels, or because they joined with a token of this group.
CREATE TABLE node_groups (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    selector TEXT NOT NULL,
    priority INTEGER NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT;

-- Only the hash of a token is here; the token itself is shown once and kept nowhere.
CREATE TABLE join_tokens (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    sha256 TEXT NOT NULL,
    node_group TEXT,
    labels TEXT NOT NULL,
    max_uses INTEGER NOT NULL CHECK (max_uses >= 1),
    uses INTEGER NOT NULL DEFAULT 0 CHECK (uses >= 0 AND uses <= max_uses),
    needs_approval INTEGER NOT NULL CHECK (needs_approval IN (0, 1)),
    created_by TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    revoked_at REAL
) STRICT;

-- A key is one node, wherever it says it belongs to.
CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    public_key TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'revoked')),
    join_token TEXT NOT NULL,
    assigned_group TEXT,
    pinned TEXT,
    attempt INTEGER NOT NULL DEFAULT 0,
    hostname TEXT NOT NULL,
    os TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    machine_id_hash TEXT NOT NULL,
    created_at REAL NOT NULL,
    last_seen_at REAL,
    asked_etag TEXT,
    offered_etag TEXT,
    offered_at REAL,
    boot_nonce TEXT,
    seq INTEGER,
    restored_at REAL
) STRICT;

CREATE INDEX nodes_by_tenant ON nodes (tenant);

CREATE TABLE node_credentials (
    sha256 TEXT PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (id),
    issued_at REAL NOT NULL,
    expires_at REAL NOT NULL
) STRICT;

CREATE INDEX node_credentials_by_node ON node_credentials (node);

-- What a node has signed a request with, for as long as its moment would be believed.
CREATE TABLE node_nonces (
    node TEXT NOT NULL REFERENCES nodes (id),
    nonce TEXT NOT NULL,
    noted_at REAL NOT NULL,
    PRIMARY KEY (node, nonce)
) STRICT;

-- A layer: what a tenant, a group or one node adds. `published` is what nodes get that no rollout has reached.
CREATE TABLE documents (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    scope TEXT NOT NULL CHECK (scope IN ('tenant', 'group', 'node')),
    target TEXT NOT NULL,
    published INTEGER,
    created_at REAL NOT NULL,
    UNIQUE (tenant, scope, target)
) STRICT;

CREATE TABLE revisions (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    number INTEGER NOT NULL,
    document TEXT NOT NULL REFERENCES documents (id),
    layer TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    author TEXT NOT NULL,
    message TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (tenant, number)
) STRICT;

CREATE INDEX revisions_by_document ON revisions (document, number);

-- Layers merged into the bytes that nodes get; made once, so that the same is always served for the same.
CREATE TABLE served (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    sha256 TEXT NOT NULL,
    layers TEXT NOT NULL,
    revision INTEGER NOT NULL,
    data TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (tenant, sha256)
) STRICT;

CREATE TABLE document_signatures (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    sha256 TEXT NOT NULL,
    key_id TEXT NOT NULL,
    signature TEXT NOT NULL,
    added_at REAL NOT NULL,
    PRIMARY KEY (tenant, sha256, key_id)
) STRICT;

-- What each node was given, so that it may ask for it again.
CREATE TABLE node_offers (
    node TEXT NOT NULL REFERENCES nodes (id),
    sha256 TEXT NOT NULL,
    offered_at REAL NOT NULL,
    PRIMARY KEY (node, sha256)
) STRICT;

CREATE TABLE roots (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    version INTEGER NOT NULL,
    data TEXT NOT NULL,
    signatures TEXT NOT NULL,
    added_at REAL NOT NULL,
    PRIMARY KEY (tenant, version)
) STRICT;

CREATE TABLE node_reports (
    node TEXT NOT NULL REFERENCES nodes (id),
    boot_nonce TEXT NOT NULL,
    seq INTEGER NOT NULL,
    data TEXT NOT NULL,
    received_at REAL NOT NULL,
    PRIMARY KEY (node, boot_nonce, seq)
) STRICT;

CREATE INDEX node_reports_by_time ON node_reports (node, received_at);

-- What happened on a node, each thing once, however many reports tell of it.
CREATE TABLE node_history (
    node TEXT NOT NULL REFERENCES nodes (id),
    happened_at TEXT NOT NULL,
    etag TEXT NOT NULL,
    event TEXT NOT NULL,
    data TEXT NOT NULL,
    received_at REAL NOT NULL,
    PRIMARY KEY (node, happened_at, etag, event)
) STRICT;

CREATE TABLE effective_configs (
    node TEXT NOT NULL REFERENCES nodes (id),
    sha256 TEXT NOT NULL,
    data TEXT,
    received_at REAL NOT NULL,
    PRIMARY KEY (node, sha256)
) STRICT;

CREATE TABLE artifacts (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    sha256 TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    filename TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    added_by TEXT NOT NULL,
    added_at REAL NOT NULL,
    PRIMARY KEY (tenant, sha256)
) STRICT;

-- Each line holds the hash of the one before: none can be changed or taken out without it being seen.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    happened_at REAL NOT NULL,
    tenant TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    details TEXT NOT NULL,
    previous TEXT NOT NULL,
    sha256 TEXT NOT NULL
) STRICT;
