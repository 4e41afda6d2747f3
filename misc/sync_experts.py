"""Fetch the published features of a data set, or a published checkpoint with its config.

python3 -m misc.sync_experts --dataset MSVD
python3 -m misc.sync_experts --model msvd-train-full-ce

What is complete is not fetched again; what was interrupted continues.
"""

import logging
import sys
from pathlib import Path

if not __package__:  # run as a file: the rooms lie in the folder above
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import misc  # noqa: F401 (see there: Ctrl-C while the rest loads)

from logger.log_file import open_log
from misc.fetching import catalogue
from misc.fetching.catalogue import find_archive, find_model
from misc.fetching.download import Patience
from misc.fetching.fetch import fetch_archive, fetch_model
from misc.fetching.plan import archive_plan, model_plan
from misc.results.published import config_of
from misc.tools import tool_parser
from utils.command_line import Parser, run_main
from utils.errors import UserError

INTERRUPTED = "the same command continues where it stopped"


def _parser() -> Parser:
    parser = tool_parser("sync_experts")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--dataset", metavar="NAME", help=f"a data set: {', '.join(catalogue.data_sets())}"
    )
    what.add_argument(
        "--model",
        metavar="EXPERIMENT",
        help="a published checkpoint, by the name of its experiment: msvd-train-full-ce",
    )
    parser.add_argument(
        "--release",
        choices=catalogue.releases(),
        help=f"which release of the features (default: {catalogue.DEFAULT_RELEASE}), or of several "
        "checkpoints of one name the one that belongs to it",
    )
    parser.add_argument(
        "--access_code", metavar="CODE", help="what the owners of LSMDC's films gave you"
    )
    parser.add_argument(
        "--root_url", metavar="URL", help="fetch from a mirror: what stands before /<release>/"
    )
    parser.add_argument(
        "--data_dir",
        metavar="PATH",
        type=Path,
        default=Path("data"),
        help="where features and checkpoints go (default: data)",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="print URLs, sizes, checksums and the configs that need them; fetch nothing",
    )
    return parser


def main(arguments: list[str] | None = None, patience: Patience | None = None) -> None:
    """Fetch what the flags name, or say what would be fetched."""
    args = _parser().parse_args(arguments)
    patience = patience or Patience()
    # Its warnings quote addresses, which hold what the access code became.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    with open_log(None):
        if args.dataset is not None:
            archive = find_archive(args.dataset, args.release, args.access_code, args.root_url)
            if args.dry_run:
                print(archive_plan(archive, args.data_dir))
                return
            fetch_archive(archive, args.data_dir, patience)
            print(f"The features of {archive.dataset} ({archive.release}) are in {args.data_dir}.")
            return
        if args.access_code is not None:
            raise UserError("--access_code is for features; checkpoints need none.")
        model = find_model(args.model, args.release, args.root_url)
        if args.dry_run:
            print(model_plan(model, args.data_dir))
            return
        checkpoint = fetch_model(model, args.data_dir, patience)
        config = config_of(model.experiment)
        given = f"--config {config} " if config else ""
        print(f"The checkpoint is {checkpoint}, its config lies beside it. To test it:")
        print(f"python3 test.py {given}--resume {checkpoint} --eval_from_training_config")


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], INTERRUPTED))
