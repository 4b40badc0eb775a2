from alembic import op

revision, down_revision = "0004", "0003"


def upgrade():
    with op.batch_alter_table("book") as book:
        book.alter_column("pages", new_column_name="leaves")
