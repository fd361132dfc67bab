"""The catalogue as a table: what can be fetched by a short name, what it weighs, and what is here already."""

from typing import Any

from rich.console import Console
from rich.text import Text

from octavo.console import count
from octavo.pull import DEFAULT
from octavo.pull.cache import Cache, gigabytes
from octavo.pull.catalogue import Reference, catalogue


def listing(cache: Cache) -> list[dict[str, Any]]:
    """One row a model, as plain values; `cached` is its path, or None."""
    rows = []
    for name, entry in catalogue().items():
        path = cache.find(Reference(entry.hub))
        facts = entry.model_dump(include={"hub", "licence", "parameters", "download_bytes"})
        facts |= {"memory_bytes": entry.memory_bytes, "cached": str(path) if path else None}
        rows.append({"name": name, "default": name == DEFAULT} | facts)
    return rows


def print_listing(rows: list[dict[str, Any]], cache: Cache) -> None:
    console = Console()

    def line(name: str, parameters: str, download: str, memory: str, here: str) -> None:
        console.print(Text(f"{name:<22}{parameters:>10}{download:>10}{memory:>10}  {here}".rstrip(), style="bold"))

    line("name", "parameters", "download", "memory", "here")
    for row in rows:
        parameters = count(row["parameters"]).replace("G", "B")  # as their makers write it
        sizes = (gigabytes(row["download_bytes"]), gigabytes(row["memory_bytes"]))
        line(row["name"], parameters, *sizes, "yes" if row["cached"] else "")
        console.print(Text(f"  {row['hub']}, {row['licence']}"))
    for text in (
        "Memory: of the weights in use, 4 bytes a parameter (float32); a conversation takes some more.",
        f"octavo pull NAME fetches one of these, or owner/name of the hub, into {cache.path}. Default: {DEFAULT}.",
    ):
        console.print(Text(text))
