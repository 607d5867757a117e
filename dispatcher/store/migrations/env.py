"""What Alembic runs around the revisions: on the connection that it is given, in the transaction that is open there."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    # SQLite's tables are made and changed within the transaction too, since ours begins with BEGIN IMMEDIATE.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
