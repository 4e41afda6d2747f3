"""Beyond one machine: write the embeddings of an index to Milvus, which searches them as exactly.

python3 -m misc.search.milvus data/index/demo-train-full-ce --uri http://milvus:19530

`misc.search --milvus` searches there then. A file ending in ".db" in place of an address is Milvus
Lite, within this process. Videos that are added to the index later come there by the same command.
"""

import sys
from pathlib import Path

from misc.tools import tool_parser
from utils.command_line import run_main


def main(arguments: list[str] | None = None) -> None:
    """Write the embeddings of an index to Milvus, or remove them from there."""
    parser = tool_parser("search.milvus")
    parser.add_argument("index", metavar="INDEX", type=Path, help="folder of misc.build_index")
    parser.add_argument("--uri", required=True, help='address, or a file ending in ".db"')
    parser.add_argument("--token", default="", help="user:password, where the server asks for one")
    parser.add_argument("--remove", action="store_true", help="remove this index from there again")
    args = parser.parse_args(arguments)
    # Only now what takes its time to load: a slip on the command line is answered at once.
    from misc.search.index.folder import Index
    from misc.search.milvus_index import MilvusIndex

    index = Index(args.index)
    with MilvusIndex(index, args.uri, args.token) as milvus:
        if args.remove:
            milvus.remove()
            print(f"Removed the index {args.index} from {args.uri}.")
            return
        count = milvus.write()
    print(f"Wrote {count} videos to {args.uri} ({len(index)} are there).")
    print(f'Search them: python3 -m misc.search {args.index} --milvus {args.uri} "a sentence"')


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], "the same command completes what is there"))
