"""List the tools, with a line for each."""

import sys

from misc.tools import find_tools
from utils.command_line import Parser, run_main


def main(arguments: list[str] | None = None) -> None:
    Parser(prog="python3 -m misc", description=__doc__).parse_args(arguments)
    tools = find_tools()
    width = max(len(tool.name) for tool in tools)
    print("python3 -m misc.<tool> (--help shows its flags):\n")
    for tool in tools:
        print(f"  {tool.name:{width}}  {tool.summary}")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
