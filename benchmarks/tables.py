"""What the tables of the results pages share: `Table(title, how, rows)`, where `how` names the command, the
machine and what was counted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first one the heads."""

    title: str
    how: tuple[str, ...]
    rows: list[list[str]]

    def markdown(self) -> str:
        first, *rest = [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([first, "|" + "---|" * len(self.rows[0]), *rest])

    def section(self) -> str:
        """With its title and a list of how it came about."""
        return "\n\n".join([f"## {self.title}", "\n".join(f"- {line}" for line in self.how), self.markdown()])


def source(r: dict, name: str, command: str) -> str:
    """Command, file and machine, in one line. Results of before the envelope say so."""
    m = r.get("run", {}).get("machine") or r.get("machine")
    on = f"{m['cores']} cores of {m['cpu']}, torch {m['torch']}" if m else "machine not recorded"
    return f"`{command}`, [{name}.json](results/{name}.json), {on}"


def command(r: dict) -> str:
    """The words that made a result, as its envelope has them, without the place of the file itself."""
    words = list(r["run"]["arguments"])
    if "--json" in words:
        at = words.index("--json")
        del words[at : at + 2]
    words = [f'"{word}"' if " " in word else word for word in words]
    return " ".join(["python", f"benchmarks/{r['run']['command']}", *words])


def million(value: float) -> str:
    return f"{value / 1e6:.2f} M"


def giga(value: float) -> str:
    return f"{value / 1e9:.3f} G"
