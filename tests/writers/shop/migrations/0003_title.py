from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0002_stock")]
    operations = [migrations.AlterField("book", "title", models.CharField(max_length=200, null=True))]
