"""A shop of peewee. What it is asked for: README.md beside this."""
import sys, uuid

sys.dont_write_bytecode = True
from peewee import CharField, ForeignKeyField, IntegerField, ManyToManyField, Model, SqliteDatabase, UUIDField
from playhouse.migrate import SqliteMigrator, migrate

database, command, version, *words = sys.argv[1:]
version = int(version)
db = SqliteDatabase(database)


class Base(Model):
    id = UUIDField(primary_key=True)

    class Meta:
        database = db


class Author(Base):
    name = CharField(40)


class Tag(Base):
    label = CharField(40, unique=True)


class Book(Base):
    title = CharField(40, null=version >= 3)
    pages = IntegerField(column_name="leaves" if version >= 4 else "pages")
    author = ForeignKeyField(Author)
    tags = ManyToManyField(Tag)
    if version >= 2:
        stock = IntegerField(default=7)


def key(*words):
    return uuid.uuid5(uuid.NAMESPACE_OID, "-".join(map(str, words)))


def change():
    migrator = SqliteMigrator(db)
    if version == 1:
        db.create_tables([Author, Tag, Book, Book.tags.get_through_model()])
    elif version == 2:
        migrate(migrator.add_column("book", "stock", Book.stock))
    elif version == 3:
        migrate(migrator.drop_not_null("book", "title"))
    else:
        migrate(migrator.rename_column("book", "pages", "leaves"))


def write(board, turn, knows, other):
    author, _ = Author.get_or_create(id=key(board), defaults={"name": board})
    made = [Book.create(id=key(board, turn, n), title=f"{board} {turn} {n}", pages=n, author=author) for n in range(3)]
    tag = Tag.create(id=key(board, turn, "tag"), label=f"{board} {turn}")
    for book in made[:2]:
        book.tags.add(tag)
    if turn:
        before = Book.get_by_id(key(board, turn - 1, 0))
        before.pages = 100 + turn
        if knows >= 2:
            before.stock = turn
        before.save(only=before.dirty_fields)
        Book.update(title=f"by {board} {turn}").where(Book.id == key("all", board)).execute()
        before.tags.clear()
        before.tags.add(tag)
        Book.delete_by_id(key(board, turn - 1, 2))
        Author.update(name=f"{board} {turn}").where(Author.id == key(board)).execute()
    return Book.update(pages=1000 + turn).where(Book.id == other).execute()


with db.atomic():
    if command == "migrate":
        change()
    elif command == "begin":
        author = Author.create(id=key("all"), name="all")
        for name in words:
            Book.create(id=key("all", name), title="of all", pages=1, author=author)
    elif command == "write":
        board, turn, knows, other, other_turn = words
        print(write(board, int(turn), int(knows), key(other, other_turn, 1)))
    else:
        for book in Book.select().order_by(Book.title):
            tags = ",".join(sorted(tag.label for tag in book.tags))
            print(book.id, book.title, book.pages, book.stock, book.author.name, tags, sep="|")
        print(*sorted(tag.label for tag in Tag.select()), sep="|")
