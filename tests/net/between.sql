CREATE TABLE t (id TEXT PRIMARY KEY, v)
INSERT INTO t VALUES ('secret', 1), ('other', 2)
