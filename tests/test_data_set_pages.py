"""The pages of the published data sets: what the command writes, and facts from elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_loader.sets.description import find_description, published_names
from misc import data_set_pages
from misc.results.published import DATA_SETS
from tests.conftest import ROOT, SHARED


def rows_of(page: str, section: str) -> list[list[str]]:
    """Return the cells of all table rows of a section, heads left out."""
    lines = page.split(f"\n## {section}\n")[1].split("\n## ")[0].splitlines()
    tables = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    after = [number for number, cells in enumerate(tables) if cells[0] == "---"]
    return [row for n, row in enumerate(tables) if n not in after and n + 1 not in after]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Folder of the configs -> the page as it lies there."""
    return {f: (ROOT / "configs" / f / "README.md").read_text() for f in DATA_SETS}


@pytest.fixture(scope="module")
def reference() -> Path:
    if not (SHARED / "reference").is_dir():
        pytest.skip("the tables of facts are not here")
    return SHARED / "reference"


def facts(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("folder", DATA_SETS)
def test_a_page_is_what_the_command_writes(folder: str, pages: dict[str, str]) -> None:
    assert pages[folder] == data_set_pages.page(folder)


def test_the_command_writes_all_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data_set_pages, "page", lambda folder: f"page of {folder}")
    monkeypatch.setattr(data_set_pages, "CONFIGS", tmp_path / "configs")
    (tmp_path / "configs").mkdir()
    data_set_pages.main([])
    written = {p.parent.name: p.read_text() for p in tmp_path.glob("configs/*/README.md")}
    assert written == {folder: f"page of {folder}" for folder in DATA_SETS}
    assert capsys.readouterr().out.splitlines()[0] == "configs/msrvtt/README.md"


def test_every_published_set_has_a_page(pages: dict[str, str]) -> None:
    assert sorted(DATA_SETS.values()) == published_names()
    for folder, name in DATA_SETS.items():
        assert pages[folder].startswith(f"# {name}\n")
        splits = {row[0].split("`")[1] for row in rows_of(pages[folder], "Splits")}
        assert splits == set(find_description(name).splits)


def test_links_and_files_exist(pages: dict[str, str]) -> None:
    for folder, page in pages.items():
        for part in page.split("](")[1:]:
            target = part.split(")")[0]
            assert (ROOT / "configs" / folder / target).exists(), target


def test_results_are_those_published(pages: dict[str, str], reference: Path) -> None:
    published = facts(reference / "published_results.json")["experiments"]
    shown = {}
    for folder, page in pages.items():
        for cells in rows_of(page, "Published results"):
            if len(cells) > 8:  # both directions: Collaborative Experts
                name = cells[0].split("`")[1] if "`" in cells[0] else ""
                experiment = f"{folder}-{name}" if name else cells[0].split()[0]
                shown[experiment] = cells
    assert shown.keys() == published.keys()
    for experiment, result in published.items():
        cells = shown[experiment]
        count = result["params"]
        assert cells[1] == (f"{count / 1e6:.2f}M" if count >= 1e5 else str(count))
        expected = [
            "{:.1f} ({:.1f})".format(*result["metrics"][direction][key])
            for direction in ("t2v", "v2t")
            for key in ("R1", "R5", "R10", "MedR")
        ]
        assert cells[3:] == expected, experiment


def test_teachtext_is_as_published(pages: dict[str, str], reference: Path) -> None:
    """Of the tables in Markdown, the rows that these pages hold with the same figures."""
    text = (reference / "published_tables.md").read_text()
    expected = []
    for line in text.split("## MSRVTT Benchmark")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].startswith(("CE", "TeachText")) and cells[2] == "t2v":
            values = [cells[3], cells[4], cells[5], cells[7]]
            expected.append([value.replace("(", " (") for value in values])
    shown = [
        cells[3:]
        for page in pages.values()
        for cells in rows_of(page, "Published results")
        if len(cells) == 7
    ]
    assert sorted(shown) == sorted(expected) and len(shown) > 20


def test_archives_are_those_published(pages: dict[str, str], reference: Path) -> None:
    table = facts(reference / "archives.json")
    sizes = table["archive_sizes_GiB"]
    for folder, name in DATA_SETS.items():
        root = find_description(name).root.name
        expected = {}
        for release, entry in table["releases"].items():
            if root in entry["archives"]:
                archive = entry["archives"][root]
                expected[release] = (archive["file"], archive["sha1"])
        found = {}
        if expected:
            for release, file, size, sums, _ in rows_of(pages[folder], "Archives"):
                found[release] = (file, sums.split("`")[1::2])
                if release == "features-v2":
                    about = f"about {sizes[name]} GiB" if name in sizes else "not published"
                    assert size == about
        assert found == expected
    assert [f for f, page in pages.items() if "register" in page] == ["lsmdc"]
    assert "--access_code CODE" in pages["lsmdc"]


def test_lists_have_their_lengths(pages: dict[str, str], reference: Path) -> None:
    checked = 0
    for folder, name in DATA_SETS.items():
        lists = reference / "splits" / find_description(name).root.name.lower()
        for cells in rows_of(pages[folder], "Splits"):
            for file, count in ((cells[1], cells[2]), (cells[3], cells[4])):
                path = lists / file.strip("`")
                if path.is_file():
                    ids = path.read_text().split()
                    assert int(count.replace(",", "")) == len(set(ids))
                    checked += 1
    assert checked > 15


def test_experts_have_their_files_and_sizes(pages: dict[str, str], reference: Path) -> None:
    """Every expert of every published experiment stands on its set's page, with its size."""
    built = facts(reference / "param_counts.json")
    configs = facts(reference / "resolved_configs.json")
    # The published QuerYD has no speech; a config asks for it all the same.
    built.pop("configs/queryd/train-full-ce-only-scene-speech.json")
    checked = 0
    for folder, dataset in DATA_SETS.items():
        shown = {}
        for cells in rows_of(pages[folder], "Experts"):
            expert = cells[0].split("`")[1]
            shown.setdefault(expert, set()).update(cells[2].split(" or "))
        for config, entry in built.items():
            arguments = configs[config].get("data_loader", {}).get("args", {})
            if arguments.get("dataset_name") == dataset and Path(config).parent.name != "configs":
                for expert, size in (entry.get("raw_input_dims") or {}).items():
                    assert expert in shown, (config, expert)
                    assert str(size) in shown[expert], (config, expert, size)
                    checked += 1
    assert checked > 500
