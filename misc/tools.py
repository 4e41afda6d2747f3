"""The tools of this room: what each is called, what its docstring says, and its parser."""

import argparse
import ast
import re
from dataclasses import dataclass
from pathlib import Path

from utils.command_line import Parser

ROOM = Path(__file__).parent
_ENTRY = re.compile(r'^if __name__ == "__main__":\n    sys\.exit\(run_main\(', re.MULTILINE)
_EXAMPLE = "python3 "

DEFAULT_PORT = 8000  # of the tools that serve pages


@dataclass(frozen=True)
class Tool:
    """A tool, as its docstring presents it.

    Attributes:
        name: what stands after `python3 -m misc.`.
        summary: the docstring's first line.
        examples: its lines of commands.
        details: its other paragraphs.
    """

    name: str
    summary: str
    examples: list[str]
    details: list[str]


def find_tools() -> list[Tool]:
    """Find all tools by their last lines; none of them is imported."""
    files = {*ROOM.rglob("*.py")} - {ROOM / "__main__.py"}
    found = [path for path in files if _ENTRY.search(path.read_text(encoding="utf-8"))]
    return sorted(map(_read, found), key=lambda tool: tool.name)


def tool_parser(name: str, more: str = "") -> Parser:
    """Make the parser of a tool, whose --help says what the tool's docstring says.

    Args:
        name: what stands after `python3 -m misc.`.
        more: a paragraph for the end of --help that is not known before the program runs.
    """
    place = ROOM.joinpath(*name.split("."))
    tool = _read(place / "__main__.py" if place.is_dir() else place.with_suffix(".py"))
    examples = "\n".join(("example:", *(f"  {line}" for line in tool.examples)))
    return Parser(
        prog=f"python3 -m misc.{name}",
        description=tool.summary,
        epilog="\n\n".join(filter(None, (examples, *tool.details, more))),
        formatter_class=_Formatter,
    )


def _read(path: Path) -> Tool:
    module = path.relative_to(ROOM).with_suffix("").parts
    name = ".".join(module[:-1] if module[-1] == "__main__" else module)
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    summary, *paragraphs = doc.split("\n\n")
    examples = [p for p in paragraphs if p.startswith(_EXAMPLE)]
    details = [p for p in paragraphs if not p.startswith(_EXAMPLE)]
    return Tool(name, summary, "\n".join(examples).splitlines(), details)


def add_address_flags(parser: Parser) -> None:
    """The flags --host and --port of a tool that serves a page."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine alone)"
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"default {DEFAULT_PORT}; 0: any free one"
    )


class _Formatter(argparse.HelpFormatter):
    """Keeps paragraphs apart, and the lines of examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        fill = super()._fill_text
        return "\n\n".join(
            p if p.startswith("example:") else fill(p, width, indent) for p in paragraphs
        )
