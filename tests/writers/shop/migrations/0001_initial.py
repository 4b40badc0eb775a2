from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel("Author", [
            ("id", models.UUIDField(primary_key=True)),
            ("name", models.CharField(max_length=40)),
        ]),
        migrations.CreateModel("Tag", [
            ("id", models.UUIDField(primary_key=True)),
            ("label", models.CharField(max_length=40, unique=True)),
        ]),
        migrations.CreateModel("Book", [
            ("id", models.UUIDField(primary_key=True)),
            ("title", models.CharField(max_length=40)),
            ("pages", models.IntegerField()),
            ("author", models.ForeignKey(on_delete=models.CASCADE, to="shop.author")),
            ("tags", models.ManyToManyField(to="shop.tag")),
        ]),
    ]
