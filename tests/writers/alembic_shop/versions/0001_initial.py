import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade():
    op.create_table("author", sa.Column("id", sa.Text, primary_key=True), sa.Column("name", sa.String(40), nullable=False))
    op.create_table("tag", sa.Column("id", sa.Text, primary_key=True), sa.Column("label", sa.String(40), nullable=False, unique=True))
    op.create_table(
        "book", sa.Column("id", sa.Text, primary_key=True), sa.Column("title", sa.String(40), nullable=False),
        sa.Column("pages", sa.Integer, nullable=False),
        sa.Column("author_id", sa.Text, sa.ForeignKey("author.id", name="by"), nullable=False))
    op.create_table(
        "book_tag", sa.Column("book_id", sa.Text, sa.ForeignKey("book.id"), primary_key=True),
        sa.Column("tag_id", sa.Text, sa.ForeignKey("tag.id"), primary_key=True))
