-- How far each schedule is: a due time and its job are written together, so that neither a crash nor a second start
-- makes two jobs of one.
CREATE TABLE schedules (
    name TEXT NOT NULL PRIMARY KEY,
    timetable TEXT NOT NULL,
    done_at REAL NOT NULL,
    job TEXT,
    submitted INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0,
    missed INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
