"""A table of cells as Markdown or LaTeX."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# What LaTeX takes for a command stands for itself in these spellings.
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~])")
# A number with its sign, which LaTeX would set as a hyphen.
_SIGNED = re.compile(r"(?<![\w.)])([+-])(?=[0-9])")


@dataclass(frozen=True)
class Cell:
    """A text, and whether it is the best of its column."""

    text: str
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """Cells in rows under heads; the first `texts` columns hold words, the others numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    texts: int = 1


def as_markdown(table: Table) -> str:
    """Write the table in GitHub's Markdown."""
    marks = ["---" if n < table.texts else "---:" for n in range(len(table.heads))]
    lines = [[escape_markdown(head) for head in table.heads], marks]
    for row in table.rows:
        texts = [escape_markdown(cell.text) for cell in row]
        lines.append([f"**{t}**" if c.is_best else t for t, c in zip(texts, row, strict=True)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_latex(table: Table) -> str:
    """Write the table as a LaTeX `tabular`, which needs no package."""
    columns = "l" * table.texts + "r" * (len(table.heads) - table.texts)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\hline"]
    lines += [_latex_line([escape_latex(head) for head in table.heads]), r"\hline"]
    for row in table.rows:
        texts = [escape_latex(cell.text) for cell in row]
        marked = [rf"\textbf{{{t}}}" if c.is_best else t for t, c in zip(texts, row, strict=True)]
        lines.append(_latex_line(marked))
    return "\n".join([*lines, r"\hline", r"\end{tabular}"])


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": as_markdown, "latex": as_latex}


def escape_markdown(text: str) -> str:
    """Spell a text so that Markdown shows it as it is, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def escape_latex(text: str) -> str:
    """Spell a text so that LaTeX sets it as it is, on one line."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
    return _SIGNED.sub(r"$\1$", escaped)


def _latex_line(cells: Sequence[str]) -> str:
    # In front of "[" LaTeX would read an option of the line break before.
    first = f"{{}}{cells[0]}" if cells[0].startswith(("[", "*")) else cells[0]
    return " & ".join([first, *cells[1:]]) + r" \\"
