"""A shop that Django keeps. What it is asked for: README.md beside it."""
import sys, uuid

sys.dont_write_bytecode = True
import django
from django.conf import settings

database, command, version, *words = sys.argv[1:]
settings.configure(
    INSTALLED_APPS=["shop"], DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}})
django.setup()
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader

version = int(version)
names = ["0001_initial", "0002_stock", "0003_title", "0004_leaves"]
if command == "migrate":
    call_command("migrate", "shop", names[version - 1], verbosity=0)
    sys.exit()

# The models as they are at that version.
apps = MigrationLoader(connection).project_state(("shop", names[version - 1])).apps
Author, Book, Tag = (apps.get_model("shop", name) for name in ("Author", "Book", "Tag"))
leaves = "leaves" if version >= 4 else "pages"


def key(*words):
    return uuid.uuid5(uuid.NAMESPACE_OID, "-".join(map(str, words)))


@transaction.atomic
def write(board, turn, knows, other):
    author, _ = Author.objects.get_or_create(id=key(board), defaults={"name": board})
    made = [Book.objects.create(id=key(board, turn, n), title=f"{board} {turn} {n}", author=author, **{leaves: n})
            for n in range(3)]
    tag = Tag.objects.create(id=key(board, turn, "tag"), label=f"{board} {turn}")
    for book in made[:2]:
        book.tags.add(tag)
    if turn:
        # What this board made before; and a book that all have, of which it alone writes this one.
        before = Book.objects.get(id=key(board, turn - 1, 0))
        setattr(before, leaves, 100 + turn)
        if knows >= 2:
            before.stock = turn
        before.save()
        Book.objects.filter(id=key("all", board)).update(title=f"by {board} {turn}")
        before.tags.set([tag])
        Book.objects.get(id=key(board, turn - 1, 2)).delete()
        Author.objects.filter(id=key(board)).update(name=f"{board} {turn}")
    return Book.objects.filter(id=other).update(**{leaves: 1000 + turn})


if command == "begin":
    author = Author.objects.create(id=key("all"), name="all")
    for name in words:
        Book.objects.create(id=key("all", name), title="of all", author=author, **{leaves: 1})
elif command == "write":
    board, turn, knows, other, other_turn = words
    print(write(board, int(turn), int(knows), key(other, other_turn, 1)))
else:
    for book in Book.objects.order_by("title").select_related("author"):
        tags = ",".join(sorted(tag.label for tag in book.tags.all()))
        print(book.id, book.title, getattr(book, leaves), book.stock, book.author.name, tags, sep="|")
    print(*sorted(tag.label for tag in Tag.objects.all()), sep="|")
