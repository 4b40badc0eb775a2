"""A shop that sqlite-utils keeps. What it is asked for: README.md beside this."""
import sys, uuid

sys.dont_write_bytecode = True
from sqlite_utils import Database

database, command, version, *words = sys.argv[1:]
version = int(version)
db = Database(database)
author, book, tag, book_tag = (db[name] for name in ("author", "book", "tag", "book_tag"))
leaves = "leaves" if version >= 4 else "pages"


def key(*words):
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "-".join(map(str, words))))


def migrate():
    if version == 1:
        author.create({"id": str, "name": str}, pk="id")
        tag.create({"id": str, "label": str}, pk="id")
        book.create({"id": str, "title": str, "pages": int, "author_id": str}, pk="id", foreign_keys=[("author_id", "author")])
        book_tag.create({"book_id": str, "tag_id": str}, pk=("book_id", "tag_id"), foreign_keys=[("book_id", "book"), ("tag_id", "tag")])
    elif version == 2:
        book.add_column("stock", int, not_null_default=7)
    elif version == 3:
        book.transform(not_null={"title"}, defaults={"title": "none"}, column_order=("title", "id"))
    else:
        book.transform(rename={"pages": "leaves"})


def write(board, turn, knows, other):
    author.insert({"id": key(board), "name": board}, ignore=True)
    for n in range(3):
        book.insert({"id": key(board, turn, n), "title": f"{board} {turn} {n}", leaves: n, "author_id": key(board)})
    tag.insert({"id": key(board, turn, "tag"), "label": f"{board} {turn}"})
    book_tag.insert_all({"book_id": key(board, turn, n), "tag_id": key(board, turn, "tag")} for n in range(2))
    if turn:
        before = key(board, turn - 1, 0)
        book.update(before, {leaves: 100 + turn, **({"stock": turn} if knows >= 2 else {})})
        book.update(key("all", board), {"title": f"by {board} {turn}"})
        book_tag.delete_where("book_id = ?", [before])
        book_tag.insert({"book_id": before, "tag_id": key(board, turn, "tag")})
        book.delete(key(board, turn - 1, 2))
        author.upsert({"id": key(board), "name": f"{board} {turn}"}, pk="id")
    with db.conn:
        return db.execute(f"UPDATE book SET {leaves} = ? WHERE id = ?", [1000 + turn, other]).rowcount


if command == "migrate":
    migrate()
elif command == "begin":
    author.insert({"id": key("all"), "name": "all"})
    book.insert_all({"id": key("all", name), "title": "of all", leaves: 1, "author_id": key("all")} for name in words)
elif command == "write":
    board, turn, knows, other, other_turn = words
    print(write(board, int(turn), int(knows), key(other, other_turn, 1)))
else:
    for row in db.query("SELECT b.*, name FROM book b JOIN author a ON a.id = author_id ORDER BY title"):
        labels = db.query("SELECT label FROM tag JOIN book_tag ON id = tag_id WHERE book_id = ? ORDER BY label", [row["id"]])
        print(row["id"], row["title"], row[leaves], row["stock"], row["name"], ",".join(r["label"] for r in labels), sep="|")
    print(*(row["label"] for row in db.query("SELECT label FROM tag ORDER BY label")), sep="|")
