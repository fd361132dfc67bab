"""What a sweep found: one row a value, for the terminal, as Markdown, and as data."""

import sys
from collections.abc import Iterator

from rich.console import Console

from octavo.config import Config
from octavo.console import interval, plain_table

COLUMNS = ("value", "seeds", "pass@1", "95% interval", "worst seed", "best seed", "difference", "its 95%", "p")


class Variant(Config):
    """All runs of one value, measured on the same held-out problems."""

    value: str
    seeds: tuple[int, ...]
    pass_at_1: float
    """Mean over seeds."""
    low: float
    high: float
    """Ends of its 95% interval, clustered by problem."""
    by_seed: tuple[float, ...]
    """pass@1 of each run, in the order of `seeds`."""
    difference: float | None = None
    """To the first value, paired by problem; None: it is the first."""
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    """Two-sided, of no difference on problems like these; says nothing of other training seeds: see `by_seed`."""

    @property
    def worst(self) -> float:
        return min(self.by_seed)


class SweepResult(Config):
    """The closing table as data: sweep.json."""

    recipe: str
    key: str
    stage: str
    """The `eval` stage that is compared."""
    problems: int
    variants: tuple[Variant, ...]

    @property
    def title(self) -> str:
        return f"{self.key}, measured by {self.stage} on {self.problems} held-out problems"

    @property
    def reading(self) -> str:
        """What the differences and their p say, and what not."""
        return (
            f"Differences are to {self.variants[0].value}, paired by problem. p speaks of these runs on problems like "
            "these; whether another training seed would agree, the worst and best seed show."
        )

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The cells under `COLUMNS`."""
        for variant in self.variants:
            compared = variant.difference is not None and variant.p_value is not None
            yield (
                variant.value,
                str(len(variant.seeds)),
                f"{variant.pass_at_1:.1%}",
                interval(variant.low, variant.high),
                f"{variant.worst:.1%}",
                f"{max(variant.by_seed):.1%}",
                f"{variant.difference:+.1%}" if compared else "-",
                interval(variant.difference_low, variant.difference_high),
                f"{variant.p_value:.3f}" if compared else "-",
            )

    def markdown(self) -> str:
        """The table as a page can take it in: sweep.md."""
        marks = ("---", *("---:" for _ in COLUMNS[1:]))
        cells = [COLUMNS, marks, *(tuple(cell.replace("|", "\\|") for cell in row) for row in self.rows())]
        table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
        title = f"`{self.key}`, measured by `{self.stage}` on {self.problems} held-out problems:"
        return f"{title}\n\n{table}\n\n{self.reading}\n"


def print_sweep(result: SweepResult, console: Console | None = None) -> None:
    """One row a value."""
    table = plain_table(result.title)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "value" else "right")
    for row in result.rows():
        table.add_row(*row)
    if console is None:  # what is no terminal has no width of its own
        console = Console() if sys.stdout.isatty() else Console(width=140, color_system=None)
    console.print(table)
    console.print(result.reading, highlight=False)
