-- What the jobs of an instance under one configuration were measured to need.
CREATE TABLE peaks (
    instance TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    figures TEXT NOT NULL,
    PRIMARY KEY (instance, config_hash)
) STRICT, WITHOUT ROWID;
