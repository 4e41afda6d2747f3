"""All runs as pages: the table, two runs compared, an export for any static server."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logger.page.data import Ranking, Retrieved
from misc.run_pages.export import MARK, export
from misc.run_pages.gather import gather
from misc.run_pages.site import Site
from misc.serve_rankings import main
from tests.rankings_html import everything, make_videos, write
from tests.rankings_site import serving
from tests.test_results_table import add_run, measured
from tests.tiny_set import write_json
from utils.command_line import run_main

HOSTILE = "</script><img src=x onerror=alert(1)>"
NUMBER = 60


def ranks_of(seed: int) -> list[float]:
    """Three queries to each video, one of which has no rank in common with chance."""
    drawn = np.random.default_rng(seed).geometric(0.25, NUMBER).astype(float)
    drawn[0] = 1.0 + 10 * seed
    return drawn.tolist()


def add_pages(saved: Path, experiment: str, when: str, seed: int, first: int = 0) -> Path:
    ranks = ranks_of(seed)
    rankings = [
        Ranking(
            query_id=f"{n}",
            captions=[f"caption {first + n}"],
            video_id=f"v{n // 3}",
            rank=rank,
            similarity=0.5,
            retrieved=[Retrieved(f"v{(n // 3 + k) % 20}", 0.5) for k in range(int(rank == 1), 3)],
            number=n + 1,
        )
        for n, rank in enumerate(ranks)
    ]
    web = saved / "web" / experiment / when
    videos = make_videos(saved / "clips", "v1.mp4", "v1.jpg", "notes.txt")
    write(
        web,
        rankings[:4],
        video_folder=videos,
        every=everything(rankings),
        num_videos=20,
        num_texts=NUMBER,
    )
    return web


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Two experiments of two seeds and one, a training in its course, a damaged run."""
    saved = tmp_path_factory.mktemp("saved")
    epochs = [{"epoch": n, "val_t2v_metrics_geometric_mean_R1-R5-R10": 10.0 * n} for n in (1, 2, 3)]
    runs = [
        ("demo-ce", "2026-01-01_10-00-00", 0, 40.0),
        ("demo-ce", "2026-01-02_10-00-00", 1, 44.0),
        (f"hostile {HOSTILE}".replace("/", "_"), "2026-01-03_10-00-00", 0, 30.0),
    ]
    for experiment, when, seed, recall in runs:
        add_run(saved, experiment, when, seed, measured(recall), epochs=epochs)
        add_pages(saved, experiment, when, seed)
    add_run(saved, "demo-ce", "2026-01-04_10-00-00", None, epochs=epochs)
    add_run(saved, "other-split", "2026-01-01_09-00-00", 5, measured(10.0))
    add_pages(saved, "other-split", "2026-01-01_09-00-00", 5, first=1000)
    (saved / "models").mkdir()
    for place, damage in enumerate(("{", "[]", '{"epochs": [1]}', '{"test_split": [1]}', None)):
        damaged = add_run(saved, "broken", f"2026-01-05_10-00-0{place}", 0, measured(1.0))
        (damaged / "metrics.json").unlink()
        if damage is None:
            (damaged / "metrics.json").mkdir()
        else:
            (damaged / "metrics.json").write_text(damage)
    return saved


@pytest.fixture(scope="module")
def address(saved) -> Iterator[str]:
    with serving(Site(save_dir=saved, search="http://localhost:1/")) as address:
        yield address


def test_seeds_are_folded_and_what_cannot_be_read_is_a_note(saved):
    table = gather(saved)
    assert [group.experiment[:7] for group in table.groups] == ["demo-ce", "hostile", "other-s"]
    group = table.groups[0]
    assert (group.split, group.seeds, group.newest) == ("full-test", 2, "2026-01-04 10:00")
    assert group.means[:2] == [42.0, 62.0]
    assert group.spreads[0] == pytest.approx(statistics.stdev([40.0, 44.0]))
    assert [(run.seed, run.status) for run in group.runs] == [
        ("", "validation after epoch 3"),
        ("1", ""),
        ("0", ""),
    ]
    assert group.runs[0].figures == [None, None, None, None, 30.0]
    assert group.runs[1].curve == "0.0,23.0 50.0,12.0 100.0,1.0"
    assert [bool(run.page and run.data) for run in group.runs] == [False, True, True]
    assert table.groups[1].spreads[0] is None
    assert len(table.notes) == 5
    assert all("broken" in note and "metrics.json" in note for note in table.notes)


def test_a_folder_without_runs_is_a_table_that_says_so(tmp_path):
    (tmp_path / "log").mkdir()
    site = Site(save_dir=tmp_path)
    assert "There are no runs here yet." in site.find("index.html")
    assert site.find("runs.js") == "globalThis.comparableRuns = [];\n"


def test_the_table_is_sorted_folded_and_leads_to_pages_and_comparisons(page, address):
    page.goto(address)
    names = page.locator(".group bdi")
    assert names.all_inner_texts()[0] == "demo-ce" and "onerror" in names.all_inner_texts()[1]
    cells = page.locator(".group").first.locator("td").all_inner_texts()
    assert cells[:2] == ["2", "42.0 ± 2.8"]
    page.get_by_role("button", name="R@1", exact=True).click()
    assert page.evaluate("location.search") == "?sort=0"
    page.get_by_label("Sort").select_option(label="MedR, best first")
    page.get_by_label("Sort").select_option(label="experiment")
    assert [n[:7] for n in names.all_inner_texts()] == ["demo-ce", "hostile", "other-s"]
    toggle = page.get_by_role("button", name="runs of demo-ce")
    toggle.click()
    assert page.get_by_role("link", name="2026-01-02_10-00-00").is_hidden()
    toggle.click()
    page.get_by_label("compare 2026-01-01_10-00-00").check()
    page.get_by_label("compare 2026-01-02_10-00-00").check()
    assert page.get_by_label("compare 2026-01-03_10-00-00").is_disabled()
    page.get_by_role("link", name="Compare two runs").click()
    page.wait_for_selector(".versus")
    asked = page.evaluate("Object.fromEntries(new URLSearchParams(location.search))")
    assert sorted(asked[side][-11:] for side in "ab") == ["1_10-00-00/", "2_10-00-00/"]
    page.goto(address)
    page.get_by_label("Filter").fill("hostile")
    assert page.locator("tbody:not([hidden])").count() == 1
    page.get_by_role("link", name="2026-01-03_10-00-00").click()
    page.get_by_role("link", name="All runs").click()
    page.wait_for_selector("table.runs")
    assert page.evaluate("violations") == []


def compare_address(address: str, first: tuple[str, int], second: tuple[str, int]) -> str:
    base = "runs/{}/2026-01-0{}_10-00-00/"
    return f"{address}/compare.html?a={base.format(*first)}&b={base.format(*second)}"


def test_two_runs_stand_side_by_side_sorted_by_what_changed(page, address):
    page.goto(compare_address(address, ("demo-ce", 1), ("demo-ce", 2)))
    page.wait_for_selector(".versus")
    a, b = np.array(ranks_of(0)), np.array(ranks_of(1))
    won, lost = int((b < a).sum()), int((b > a).sum())
    counts = page.locator("#counts").inner_text()
    assert f"better in {won} of {NUMBER} queries, A in {lost}; {NUMBER - won - lost}" in counts
    rows = page.locator("#metrics tr").evaluate_all(
        "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    shown = {row[0]: [text.replace("−", "-") for text in row[1:]] for row in rows}
    for k in (1, 5, 10):
        recalls = [100 * np.mean(ranks <= k) for ranks in (a, b)]
        assert shown[f"R@{k}"][:2] == [f"{value:.1f}" for value in recalls]
    assert shown["MedR"][:3] == [f"{np.median(a):.1f}", f"{np.median(b):.1f}", "0.0"]
    assert float(shown["MeanR"][2]) == pytest.approx(np.mean(b - a), abs=0.06)
    first = page.locator(".versus").first
    assert "A is better by" in first.inner_text()
    changes = np.abs(b - a)
    order = sorted(range(NUMBER), key=lambda n: (-changes[n], n))
    ids = page.locator(".versus").evaluate_all("all => all.map((card) => card.id)")
    assert ids == [f"query-{n + 1}" for n in order[: len(ids)]]
    page.get_by_label(f"B is better ({won})").check(force=True)
    page.get_by_label("Sort").select_option(label="by number")
    shown_ids = page.locator(".versus").evaluate_all("all => all.map((card) => card.id)")
    assert shown_ids == [f"query-{n + 1}" for n in np.flatnonzero(b < a)][: len(shown_ids)]
    page.goto(page.url)
    page.wait_for_selector(".versus")
    assert page.get_by_label("B is better").is_checked()
    page.get_by_label("Filter").fill("nothing like this")
    assert page.locator("#nothing").is_visible()
    link = page.goto(address + "/" + page.evaluate("comparableRuns[0].page"))
    assert link.ok


def test_a_run_that_is_not_there_is_told(page, address):
    page.goto(f"{address}/compare.html?a=<b>nothing</b>")
    page.wait_for_selector(".versus")
    assert page.locator("#status").inner_text().startswith("<b>nothing</b> is not among these runs")
    page.get_by_label("run A").select_option(index=0)
    page.wait_for_function("() => document.getElementById('status').hidden")


def test_runs_without_a_query_in_common_say_so(page, address):
    page.goto(f"{address}/compare.html?a=nothing&b=runs/other-split/2026-01-01_09-00-00/")
    page.wait_for_function("() => /no query in common/.test(document.body.textContent)")
    assert page.locator("#outcome").is_hidden()


def test_the_interval_is_that_of_a_bootstrap_over_videos(page, address):
    generator = np.random.default_rng(0)
    owners = np.repeat(np.arange(40), 5)
    values = generator.normal(size=40)[owners] + generator.normal(size=200)
    page.goto(f"{address}/compare.html")
    call = "([values, owners]) => bootstrap([values, values.map((v) => 2 * v)], owners)"
    found = page.evaluate(call, [values.tolist(), [f"v{o}" for o in owners]])
    assert found == page.evaluate(call, [values.tolist(), [f"v{o}" for o in owners]])
    assert found[1] == pytest.approx([2 * end for end in found[0]])
    means = values.reshape(40, 5).mean(axis=1)
    drawn = means[generator.integers(0, 40, size=(20_000, 40))].mean(axis=1)
    assert found[0] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.03)
    alone = page.evaluate(call, [values.tolist(), [f"q{n}" for n in range(200)]])[0]
    assert alone[1] - alone[0] < 0.7 * (found[0][1] - found[0][0]), "queries are not independent"


def test_axe_finds_nothing_that_keeps_people_out(page, address):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 844})
    for place, waits in (("/", "table.runs button"), ("/compare.html", ".versus")):
        page.goto(address + place)
        page.wait_for_selector(waits)
        results = axe.run(page)
        assert results.violations_count == 0, results.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


# Serving and exporting --------------------------------------------------------------------------


def test_a_site_of_all_runs_gives_their_pages_and_nothing_else(saved):
    site = Site(save_dir=saved, search="http://localhost:1/")
    run = "runs/demo-ce/2026-01-01_10-00-00"
    assert isinstance(site.find(f"{run}/index.html"), Path)
    assert site.find(f"{run}/videos/v1.mp4").read_bytes() == b"v1.mp4"
    told = site.find(f"{run}/pages.js")
    assert 'globalThis.runsPage = "../../../index.html";' in told
    assert 'globalThis.searchPage = "http://localhost:1/";' in told
    for name in (
        *(f"{run}/videos/notes.txt", f"{run}/../../../log/demo-ce/x", "runs/demo-ce", "runs/"),
        *("runs/../log", "runs//index.html", "metrics.json", "runs/demo-ce/index.html", "x\0y"),
        *(f"runs/../web/{run[5:]}/index.html", "runs/x\0y/index.html"),
        *(f"{run}/run.json", "../index.html", "runs.html", "compare.htm"),
    ):
        assert site.find(name) is None, name


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["..", ".", "", "runs", "demo-ce", "2026-01-01_10-00-00", "log", "web", "index.html"]
        ),
        max_size=6,
    ).map("/".join)
)
def test_no_name_leads_out_of_the_runs(saved, name):
    found = Site(save_dir=saved).find(name)
    assert not isinstance(found, Path) or found.resolve().is_relative_to(saved / "web")


def test_an_export_opens_from_the_file_system_and_can_be_made_again(saved, tmp_path, page):
    target = tmp_path / "pages"
    assert run_main(main, [str(saved), "--export", str(target)]) == 0
    page.goto((target / "index.html").as_uri())
    page.get_by_role("link", name="2026-01-02_10-00-00").click()
    page.wait_for_selector("#query-1")
    page.get_by_role("button", name="Show all 60 queries").click()
    page.wait_for_selector("#query-40")
    page.get_by_role("link", name="All runs").click()
    page.get_by_role("link", name="Compare two runs").click()
    page.wait_for_selector(".versus")
    assert page.evaluate("violations") == []
    page.complaints[:] = [c for c in page.complaints if "v1.mp4" not in c and "DEMUXER" not in c]
    run = target / "runs" / "demo-ce" / "2026-01-01_10-00-00"
    assert (run / "videos").is_symlink() and (run / "videos" / "v1.jpg").is_file()

    (target / "own.txt").write_text("somebody's")
    stale = target / "runs" / "gone.html"
    stale.write_text("")
    names = json.loads((target / MARK).read_text())
    write_json(target / MARK, [*names, "runs/gone.html"])
    assert export(saved, target, copies_videos=True) == 4
    assert not stale.exists() and (target / "own.txt").exists()
    assert not (run / "videos").is_symlink()
    assert sorted(p.name for p in (run / "videos").iterdir()) == ["v1.jpg", "v1.mp4"]
    assert export(saved, target) == 4 and (run / "videos").is_symlink()
    assert (saved / "clips" / "notes.txt").exists(), "nothing is removed through a link"


def test_an_export_touches_no_folder_of_others(saved, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    (tmp_path / "odd").mkdir()
    write_json(tmp_path / "odd" / MARK, ["../../thesis"])
    run = saved / "web" / "demo-ce" / "2026-01-01_10-00-00"
    for arguments, sentence in [
        ([saved, "--export", tmp_path / "mine"], "holds something else than exported pages"),
        ([saved, "--export", tmp_path / "odd"], "holds something else than exported pages"),
        ([run, "--export", tmp_path / "new"], "takes the folder of all runs"),
        ([saved, "--search", "javascript:alert(1)"], "is no address that begins with http"),
        ([saved, "--copy_videos"], "--export"),
        ([saved, "--export", saved / "web" / "new"], "lies among the runs themselves"),
    ]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("misc.serve_rankings.make_page_server", None)
            try:
                code = run_main(main, [str(a) for a in arguments])
            except SystemExit as stopped:
                code = stopped.code
        assert code == 2 and sentence in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    assert not (tmp_path / "new").exists()


def test_names_are_text_on_the_pages_of_all_runs(saved):
    site = Site(save_dir=saved)
    texts = {name: site.find(name) for name in ("index.html", "compare.html", "runs.js")}
    assert not any("<img" in texts[name] for name in ("index.html", "compare.html"))
    listed = json.loads(texts["runs.js"].split(" = ", 1)[1][:-2])
    assert any("<img src=x onerror=alert(1)>" in run["name"] for run in listed)
