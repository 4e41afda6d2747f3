"""What is served: the pages of one run, or those of all runs of a folder."""

from dataclasses import dataclass
from pathlib import Path

from logger.page.list import PAGE_LIST
from logger.page.runs import runs_files, with_links
from misc.run_pages.gather import gather
from misc.run_pages.places import RUNS, find_file, find_run, front_page


@dataclass(frozen=True)
class Site:
    """The files behind an address.

    Attributes:
        pages: of one run; None: of all runs in `save_dir`.
        save_dir: of the runs.
        search: address of a search that is served beside them; "": there is none.
    """

    pages: Path | None = None
    save_dir: Path | None = None
    search: str = ""

    def front(self) -> str | None:
        """The page to begin with."""
        return "index.html" if self.pages is None else front_page(self.pages)

    def find(self, name: str) -> Path | str | None:
        """Find what a request names: a file, a text made for it, or nothing."""
        if self.pages is not None:
            return self._of_run(self.pages, name, "")
        assert self.save_dir is not None, "a site is of a run, or of all runs"
        if not name.startswith(f"{RUNS}/"):
            return runs_files(gather(self.save_dir), self.search).get(name)
        found = find_run(self.save_dir, name.removeprefix(f"{RUNS}/"))
        if found is None:
            return None
        folder, rest, depth = found
        return self._of_run(folder, rest, "../" * (depth + 1) + "index.html")

    def _of_run(self, folder: Path, name: str, runs: str) -> Path | str | None:
        path = find_file(folder, name)
        if path is None or name != PAGE_LIST or not (runs or self.search):
            return path
        return with_links(path.read_text(encoding="ascii", errors="replace"), runs, self.search)
