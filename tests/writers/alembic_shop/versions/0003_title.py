import sqlalchemy as sa
from alembic import op

revision, down_revision = "0003", "0002"


def upgrade():
    with op.batch_alter_table("book") as book:
        book.alter_column("title", existing_type=sa.String(40), nullable=True)
    with op.batch_alter_table("author") as author:
        author.create_unique_constraint("once", ["name"])
