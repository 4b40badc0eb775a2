"""A shop of SQLAlchemy that Alembic migrates. What it is asked for: README.md beside this."""
import pathlib, sys, uuid

sys.dont_write_bytecode = True
from alembic import command as alembic
from alembic.config import Config
from sqlalchemy import MetaData, create_engine, event, select
from sqlalchemy.dialects.sqlite import insert

database, command, version, *words = sys.argv[1:]
version = int(version)
url = f"sqlite:///{database}"
if command == "migrate":
    config = Config()
    config.set_main_option("script_location", str(pathlib.Path(__file__).parent / "alembic_shop"))
    config.set_main_option("sqlalchemy.url", url)
    alembic.upgrade(config, f"{version:04}")
    sys.exit()

engine = create_engine(url)
event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
# The tables as they are at that version.
tables = MetaData()
tables.reflect(engine, only=["author", "book", "tag", "book_tag"])
author, book, tag, book_tag = (tables.tables[name] for name in ("author", "book", "tag", "book_tag"))
leaves = "leaves" if version >= 4 else "pages"


def key(*words):
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "-".join(map(str, words))))


def write(db, board, turn, knows, other):
    db.execute(insert(author).values(id=key(board), name=board).on_conflict_do_nothing())
    for n in range(3):
        db.execute(insert(book).values(id=key(board, turn, n), title=f"{board} {turn} {n}", author_id=key(board), **{leaves: n}))
    db.execute(insert(tag).values(id=key(board, turn, "tag"), label=f"{board} {turn}"))
    for n in range(2):
        db.execute(insert(book_tag).values(book_id=key(board, turn, n), tag_id=key(board, turn, "tag")))
    if turn:
        before = key(board, turn - 1, 0)
        stock = {"stock": turn} if knows >= 2 else {}
        db.execute(book.update().where(book.c.id == before).values(**{leaves: 100 + turn}, **stock))
        db.execute(book.update().where(book.c.id == key("all", board)).values(title=f"by {board} {turn}"))
        db.execute(book_tag.delete().where(book_tag.c.book_id == before))
        db.execute(insert(book_tag).values(book_id=before, tag_id=key(board, turn, "tag")))
        db.execute(book.delete().where(book.c.id == key(board, turn - 1, 2)))
        db.execute(author.update().where(author.c.id == key(board)).values(name=f"{board} {turn}"))
    return db.execute(book.update().where(book.c.id == other).values(**{leaves: 1000 + turn})).rowcount


with engine.begin() as db:
    if command == "begin":
        db.execute(insert(author).values(id=key("all"), name="all"))
        for name in words:
            db.execute(insert(book).values(id=key("all", name), title="of all", author_id=key("all"), **{leaves: 1}))
    elif command == "write":
        board, turn, knows, other, other_turn = words
        print(write(db, board, int(turn), int(knows), key(other, other_turn, 1)))
    else:
        all_books = select(book, author.c.name).join(author, author.c.id == book.c.author_id).order_by(book.c.title)
        for row in db.execute(all_books).mappings():
            labels = select(tag.c.label).join(book_tag, book_tag.c.tag_id == tag.c.id).where(book_tag.c.book_id == row["id"])
            tags = ",".join(db.scalars(labels.order_by(tag.c.label)))
            print(row["id"], row["title"], row[leaves], row["stock"], row["name"], tags, sep="|")
        print(*db.scalars(select(tag.c.label).order_by(tag.c.label)), sep="|")
