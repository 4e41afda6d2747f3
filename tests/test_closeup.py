"""A closer look at an evaluation: naive twins, small blocks, several captions, missing experts."""

from pathlib import Path

import numpy as np
import pytest
import torch

import trainer.evaluation.evaluate as evaluation_module
import trainer.rankings.closeup as closeup_module
from logger.page.page import sample_queries
from model.metric import t2v_metrics
from model.similarity import TextEmbeddings, VideoEmbeddings, expert_similarities, similarity
from tests.rankings_html import Page, read_scripts
from tests.tiny_set import make_tiny_set, tiny_config, write_json
from trainer.build import build_loader, build_net
from trainer.evaluation.evaluate import CaptionEmbeddings, evaluate
from trainer.rankings.closeup import Closeup, Visualizer, rankings_text
from trainer.rankings.misleading import similarities_without
from utils.config import Config

# A video has three captions: of four, the last does not exist.
CAPTIONS = {"one": (1, "indep"), "several": (4, "indep"), "averaged": (4, "avg")}


@pytest.fixture(scope="module")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_set(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=CAPTIONS)
def parts(request, tiny_set, tmp_path):
    """A model that was never trained, and the retrieval set that it is evaluated on."""
    values = tiny_config(tiny_set, tmp_path)
    number, mode = CAPTIONS[request.param]
    values["data_loader"]["args"]["num_test_captions"] = number
    values["arch"]["args"]["test_caption_mode"] = mode
    config = Config.from_file(write_json(tmp_path / "config.json", values))
    loader = build_loader(config, 0)
    torch.manual_seed(0)
    return build_net(config, loader), loader.retrieval


@pytest.fixture(params=["kept", "in blocks"])
def evaluated(request, parts, monkeypatch):
    net, retrieval = parts
    if request.param == "in blocks":
        monkeypatch.setattr(evaluation_module, "KEPT_MATRIX_BYTES", 0)
        monkeypatch.setattr(evaluation_module, "KEPT_CAPTION_BYTES", 0)
        monkeypatch.setattr(evaluation_module, "QUERIES_PER_BLOCK", 5)
        monkeypatch.setattr(closeup_module, "QUERIES_PER_BLOCK", 5)
    names = ["t2v_metrics", "v2t_metrics"]
    evaluation = evaluate(net, retrieval, names, torch.device("cpu"))
    assert (evaluation.sims is None) == (request.param == "in blocks")
    return net, retrieval, evaluation


def test_what_is_found_is_what_a_sort_of_the_whole_matrix_gives(evaluated):
    net, retrieval, evaluation = evaluated
    closeup = Closeup(net, retrieval, evaluation, top_k=4)
    matrix = torch.cat(list(evaluation.blocks())).numpy()  # (Q, N)
    ids, width = retrieval.video_ids, closeup.num_captions
    queries = closeup.existing.nonzero().flatten()
    rankings = closeup.rankings(queries)
    for at, (query, ranking) in enumerate(zip(queries.tolist(), rankings, strict=True)):
        row = matrix[query]
        found = [match.similarity for match in ranking.retrieved]
        assert found == pytest.approx(np.sort(row)[::-1][:4], abs=1e-5)
        places = [ids.index(match.video_id) for match in ranking.retrieved]
        assert row[places] == pytest.approx(found, abs=1e-5)
        assert ranking.query_id == str(query) and ranking.video_id == ids[query // width]
        assert ranking.similarity == pytest.approx(row[query // width], abs=1e-5)
        assert ranking.rank == evaluation.ranks.t2v[at]


def test_captions_are_embedded_once_where_there_is_room(parts, monkeypatch):
    net, retrieval = parts
    device, masks = torch.device("cpu"), np.asarray(retrieval.query_masks)
    evaluation = evaluate(net, retrieval, [], device)
    captions = torch.from_numpy(masks.reshape(-1)).nonzero().flatten()
    whole = CaptionEmbeddings(net, retrieval, device).of(captions)
    embedded = []
    encode = net.encode_text
    monkeypatch.setattr(net, "encode_text", lambda x, n: embedded.append(len(x)) or encode(x, n))
    closeup = Closeup(net, retrieval, evaluation, top_k=4)
    for _ in range(2):
        list(closeup.every_ranking()), list(closeup.every_video_ranking())
    assert sum(embedded) == len(captions)
    for room, most in ((1 << 27, 5), (0, 10)):
        monkeypatch.setattr(evaluation_module, "KEPT_CAPTION_BYTES", room)
        some, embedded[:] = CaptionEmbeddings(net, retrieval, device), []
        for places in ([3, 1], [1, 0, 3, 1], [5, 0, 2, 1], [0]):
            found = some.of(captions[places])
            torch.testing.assert_close(found.weights, whole.weights[places])
            for one, other in zip(found.embeddings, whole.embeddings, strict=True):
                torch.testing.assert_close(one, other[places])
        assert sum(embedded) == most


@pytest.mark.parametrize("values", [1, 1 << 26])
def test_texts_of_a_video_are_what_a_sort_of_its_column_gives(evaluated, values, monkeypatch):
    monkeypatch.setattr(closeup_module, "BLOCK_VALUES", values)
    net, retrieval, evaluation = evaluated
    closeup = Closeup(net, retrieval, evaluation, top_k=1000)
    matrix = torch.cat(list(evaluation.blocks())).numpy()
    exists, width = closeup.existing.numpy(), closeup.num_captions
    videos = [3, 0, len(retrieval) - 1]
    rankings = closeup.video_rankings(torch.tensor(videos))
    for video, ranking in zip(videos, rankings, strict=True):
        column = matrix[exists, video]
        assert ranking.video_id == retrieval.video_ids[video]
        found = [match.similarity for match in ranking.retrieved]
        np.testing.assert_array_equal(found, np.sort(column)[::-1])
        owners = [retrieval.video_ids.index(match.video_id) for match in ranking.retrieved]
        assert sorted(owners) == sorted((np.flatnonzero(exists) // width).tolist())
        own_rows = np.arange(video * width, (video + 1) * width)
        own = matrix[own_rows[exists[own_rows]], video]
        ranks = 1 + (column > own[:, None]).sum(1) + ((column == own[:, None]).sum(1) - 1) / 2
        assert sorted((c.rank, c.similarity) for c in ranking.own) == sorted(
            zip(ranks.tolist(), own.tolist(), strict=True)
        )
        assert (ranking.rank, ranking.similarity) == (ranks.min(), own.max())
        assert ranking.rank == evaluation.ranks.v2t[video]


def test_the_experts_of_every_match_add_up_to_its_similarity(evaluated):
    net, retrieval, evaluation = evaluated
    closeup = Closeup(net, retrieval, evaluation, top_k=1)
    net.train()
    matrix = torch.cat(list(evaluation.blocks()))
    queries = closeup.existing.nonzero().flatten()
    pairs = torch.cartesian_prod(queries, torch.arange(len(retrieval))).unbind(1)
    every = closeup.experts(*pairs)
    assert net.training, "the model is left as it was"
    for speakers, available, total in zip(
        every, evaluation.video.availability[pairs[1]], matrix[pairs], strict=True
    ):
        heard = [value is not None for value in speakers.similarities]
        assert heard == (available > 0).tolist()
        assert all(
            w == 0 for w, is_heard in zip(speakers.weights, heard, strict=True) if not is_heard
        )
        said = zip(speakers.weights, speakers.similarities, strict=True)
        assert sum(w * (value or 0) for w, value in said) == pytest.approx(total.item(), abs=1e-5)
        if any(heard):
            assert sum(speakers.weights) == pytest.approx(1)
    assert not all(None not in speakers.similarities for speakers in every)


@pytest.mark.parametrize("has_weights", [True, False])
def test_pairs_taken_apart_are_the_diagonal_of_the_matrix(has_weights):
    generator = torch.Generator().manual_seed(1)
    sizes = (3, 5, 2)
    texts, videos = (
        tuple(torch.randn(6, size, generator=generator) for size in sizes) for _ in range(2)
    )
    weights = torch.rand(6, 3, generator=generator).softmax(dim=1) if has_weights else None
    availability = torch.tensor(
        [[1.0, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]]
    )
    videos = tuple(v * a.unsqueeze(1) for v, a in zip(videos, availability.unbind(1), strict=True))
    text, video = TextEmbeddings(texts, weights), VideoEmbeddings(videos, availability)
    shares, similarities = expert_similarities(text, video)
    torch.testing.assert_close((shares * similarities).sum(1), similarity(text, video).diagonal())
    joint = TextEmbeddings((torch.cat(texts, dim=1),), None)
    with pytest.raises(ValueError, match="joint"):
        expert_similarities(joint, VideoEmbeddings((torch.cat(videos, dim=1),), availability))


def test_the_expert_that_misled_is_the_one_without_which_the_true_video_ranks_best(evaluated):
    net, retrieval, evaluation = evaluated
    closeup = Closeup(net, retrieval, evaluation, top_k=2)
    queries, video = closeup.existing.nonzero().flatten(), evaluation.video
    text, owners = closeup._embed(queries)
    ranks = []
    for expert in range(video.availability.shape[1]):
        availability = video.availability.clone()
        availability[:, expert] = 0
        sims = similarity(text, VideoEmbeddings(video.embeddings, availability))
        rows = torch.stack([sims[owners == place].mean(0) for place in range(len(queries))])
        own = rows.gather(1, (queries // closeup.num_captions).unsqueeze(1))
        ranks.append(1 + (rows > own).sum(1) + ((rows == own).sum(1) - 1) / 2)
    best, which = torch.stack(ranks).min(0)
    found = 0
    for at, ranking in enumerate(closeup.every_ranking()):
        assert ranking.number == at + 1
        is_misled = ranking.rank > 1 and best[at] < ranking.rank
        assert (ranking.misled is not None) == is_misled
        if is_misled:
            found += 1
            assert (ranking.misled.expert, ranking.misled.rank) == (which[at], best[at])
    assert 0 < found < len(queries)


@pytest.mark.parametrize("has_weights", [True, False])
def test_similarities_without_an_expert_are_those_of_videos_that_lack_it(has_weights):
    generator = torch.Generator().manual_seed(2)
    texts, videos = (
        tuple(torch.randn(n, size, generator=generator) for size in (3, 5, 2)) for n in (4, 6)
    )
    weights = (8 * torch.randn(4, 3, generator=generator)).softmax(1) if has_weights else None
    availability = torch.tensor(
        [[1.0, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]]
    )
    videos = tuple(v * a.unsqueeze(1) for v, a in zip(videos, availability.unbind(1), strict=True))
    text, video = TextEmbeddings(texts, weights), VideoEmbeddings(videos, availability)
    for expert, sims in enumerate(similarities_without(text, video)):
        without = availability.clone()
        without[:, expert] = 0
        left = tuple(v * a.unsqueeze(1) for v, a in zip(videos, without.unbind(1), strict=True))
        torch.testing.assert_close(sims, similarity(text, VideoEmbeddings(left, without)))


def test_a_page_is_drawn_for_any_number_of_captions(evaluated, tmp_path):
    net, retrieval, evaluation = evaluated
    path = Visualizer(num_samples=4, top_k=3).draw(net, evaluation, retrieval, tmp_path, "Tiny")
    page = Page(path)
    ids = [e["attrs"]["id"] for e in page.elements if e["tag"] == "article"]
    numbers = [
        int(n) + 1
        for total in (len(evaluation.ranks.t2v), len(retrieval))
        for n in sample_queries(total, 4, seed=0)
    ]
    assert ids == [f"{k}-{n}" for k, n in zip(["query"] * 4 + ["video"] * 4, numbers, strict=True)]
    tiles = [e["attrs"]["data-experts"] for e in page.elements if "data-experts" in e["attrs"]]
    absent = sum(heading.startswith("True video") for heading in page.words("h4"))
    assert len(tiles) == 1 + 4 * 3 + absent + 4 * 3  # the names of the experts come first
    assert tiles[0] == '["look", "sound"]'
    every = read_scripts(tmp_path)["index"]
    assert every["query"]["rank"] == pytest.approx(evaluation.ranks.t2v.tolist())
    assert len(every["video"]["rank"]) == (0 if evaluation.sims is None else len(retrieval))
    assert page.words("dd")[0] == f"{t2v_of(evaluation)['R1']:.1f}"
    second = Visualizer(num_samples=4, top_k=3).draw(net, evaluation, retrieval, tmp_path, "2", 2)
    assert second.name == "epoch-2.html" and '"epoch 2"' in (tmp_path / "pages.js").read_text()


def t2v_of(evaluation):
    if evaluation.sims is not None and evaluation.sims.shape[0] == evaluation.sims.shape[1]:
        assert evaluation.metrics["t2v_metrics"] == t2v_metrics(evaluation.sims)
    return evaluation.metrics["t2v_metrics"]


def test_no_sample_gives_a_page_without_cards(parts, tmp_path):
    net, retrieval = parts
    evaluation = evaluate(net, retrieval, ["t2v_metrics"], torch.device("cpu"))
    path = Visualizer(num_samples=0).draw(net, evaluation, retrieval, tmp_path, "None")
    assert "no query was sampled" in path.read_text()
    Visualizer(num_samples=2, all_queries=False).draw(net, evaluation, retrieval, tmp_path, "Few")
    assert not (tmp_path / "data").exists()


def test_rankings_as_text_are_code_in_every_line(parts):
    net, retrieval = parts
    evaluation = evaluate(net, retrieval, ["t2v_metrics"], torch.device("cpu"))
    [first, *_] = rankings = Visualizer(top_k=2).rankings(net, evaluation, retrieval, 3)
    first.captions[:] = ["<b>\n# heading", "`x`"]
    text = rankings_text(rankings)
    assert len(rankings) == 3 and first.speakers is None
    assert all(line.startswith("    ") for line in text.split("\n"))
    assert "    <b> # heading / `x`\n" in text
    assert f"{first.video_id}: rank {first.rank:g}" in text
