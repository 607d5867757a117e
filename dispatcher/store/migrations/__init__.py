"""How a store of an earlier version becomes one of this: Alembic's revisions, one chain for both databases.

To change the schema: change `schema.py`, raise `REVISION` there, and add `versions/rNNNN_what_for.py` with that number
as `revision` and the one before as `down_revision`. Its `upgrade()` is written for stores that are full: a column that
may not be null brings its `server_default`. Whatever `schema.py` says later, a revision stays as it is; so it names
tables and columns itself and imports nothing of ours. There is no way back but the backup: no `downgrade`.
`tests/test_migrations.py` holds that both ways to a store give the same.

`op.create_table`, `op.add_column`, `op.create_index` and `op.drop_index` mean the same to both databases; a partial
index says `sqlite_where` and `postgresql_where`. Constraints of a file's table can't be changed: it is made anew, as in
`r0002`; foreign keys are off meanwhile, and looked at in the end.
"""
