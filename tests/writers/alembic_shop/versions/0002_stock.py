import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade():
    with op.batch_alter_table("book", recreate="always") as book:
        book.add_column(sa.Column("stock", sa.Integer, nullable=False, server_default="7"))
