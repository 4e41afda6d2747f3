"""Configs: inheritance, merging, strict checking, and the published ones."""

import contextlib
import copy
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT, SHARED
from trainer.runs.resuming import what_changes_learning
from utils.config import Config, differences, merge, resolve_config
from utils.config_kinds import MapOf, Section, WithoutEffect
from utils.config_schema import NOT_LEARNED, SCHEMA, check, without_args
from utils.errors import UserError

# One key of every kind; every nested dict here has known keys only.
EXAMPLE = {
    "seed": 0,
    "precision": "float32",
    "arch": {"type": "CENet", "args": {"use_ce": "pairwise", "include_self": 1, "l2renorm": False}},
    "experts": {"modalities": ["audio", "face"], "text_agg": "vlad", "ce_shared_dim": 128},
    "data_loader": {
        "type": "ExpertDataLoader",
        "args": {"batch_size": 64, "text_dropout": 0.5, "cache_dir": None, "split_name": "val"},
    },
    "loss": {"type": "MaxMarginRankingLoss", "args": {"margin": 0.2, "fix_norm": True}},
    "trainer": {"epochs": 3, "monitor": "max val_R1", "save_dir": "data/saved/"},
    "metrics": ["t2v_metrics"],
    "visualizer": {"type": "Visualizer", "args": {"top_k": 5}},
    "distil_params": {"teachers": ["a.pkl"], "aggregate": "mean"},
}


def leaves(value, path=()):
    """Every (path, value) that is no dict."""
    if not isinstance(value, dict):
        return [(path, value)]
    return [leaf for key, entry in value.items() for leaf in leaves(entry, (*path, key))]


def sections(value, path=()):
    """Every path to a dict, the outermost included."""
    nested = [(key, entry) for key, entry in value.items() if isinstance(entry, dict)]
    return [path] + [p for key, entry in nested for p in sections(entry, (*path, key))]


def with_value(values, path, value):
    changed = copy.deepcopy(values)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


def write(folder, files):
    for name, values in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(values if isinstance(values, str) else json.dumps(values))


def published():
    path = SHARED / "reference" / "resolved_configs.json"
    if not path.is_file():
        pytest.skip("the published configs are not here")
    return json.loads(path.read_text())


# ------------------------------------------------------------------------------- checking


def test_every_published_config_is_accepted():
    configs = published()
    assert len(configs) > 200
    for path, values in configs.items():
        config = Config.from_dict(values, path)
        assert config.values == values
        final = config.eval_config()
        settings_ = values.get("eval_settings") or {}
        for key, value in leaves(settings_):
            assert final.get(".".join(key)) == value


def test_the_example_is_accepted():
    assert Config.from_dict(EXAMPLE, "x").values == EXAMPLE


names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


@settings(deadline=None)
@given(st.sampled_from([s for s in sections(EXAMPLE) if s != ("loss", "args")]), names)
def test_an_unknown_key_is_refused_by_its_full_name(section, name):
    values = with_value(EXAMPLE, (*section, "unknown_" + name), 1)
    with pytest.raises(UserError) as refusal:
        check(values, "the config x.json")
    assert f'"{".".join((*section, "unknown_" + name))}"' in str(refusal.value)
    assert "x.json" in str(refusal.value)


@settings(deadline=None)
@given(st.sampled_from(leaves(EXAMPLE)))
def test_a_value_of_another_kind_is_refused_by_its_key(leaf):
    path, value = leaf
    for wrong in ({"a": 1}, ["", {}], 3 if isinstance(value, str | None) else "3", -1.5):
        with pytest.raises(UserError, match=r"must be") as refusal:
            check(with_value(EXAMPLE, path, wrong), "x.json")
        assert ".".join(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("path", "wrong", "expected"),
    [
        ("trainer.epochs", True, "at least 1, not true"),
        ("trainer.epochs", 0, "at least 1, not 0"),
        ("trainer.epochs", 2.0, "whole number"),
        ("loss.args.margin", float("inf"), "a finite number"),
        ("loss.args.margin", 10**400, "a finite number"),
        ("seed", 2**32, "at most 4294967295"),
        ("loss.args.margin", False, "a finite number"),
        ("data_loader.args.text_dropout", 1.5, "at most 1"),
        ("data_loader.args.num_test_captions", 0, "at least 1"),
        ("data_loader.args.restrict_train_captions", -1, "at least 0"),
        ("data_loader.args.max_tokens", {"text": 0}, "at least 1"),
        ("experts.text_agg", "mean", '"vlad" or "avg"'),
        ("arch.args.include_self", 2, "true, false, 1 or 0"),
        ("arch.args.l2renorm", 0, "true or false"),
        ("experts.modalities", "audio", "a list"),
        ("experts.modalities", ["audio", 3], '"experts.modalities.1"'),
        ("trainer.monitor", "val_R1", '"max <metric>"'),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(path, wrong, expected):
    with pytest.raises(UserError) as refusal:
        check(with_value(EXAMPLE, tuple(path.split(".")), wrong), "x.json")
    assert expected in str(refusal.value)
    assert str(refusal.value).startswith("x.json: ")


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"trainer": {"epoch": 1}}, '"trainer.epochs"'),
        ({"epochs": 1}, '"trainer.epochs"'),
        ({"trainer": {"batch_size": 1}}, '"data_loader.args.batch_size"'),
        ({"eval_settings": {"data_loader": {"arg": {}}}}, '"eval_settings.data_loader.args"'),
    ],
)
def test_an_unknown_key_gets_the_nearest_known_one(values, hint):
    with pytest.raises(UserError, match="did you mean") as refusal:
        check(values, "x.json")
    assert f"did you mean {hint}" in str(refusal.value)


@pytest.mark.parametrize("flag", [0, 1, True, False])
def test_switches_that_are_published_either_way_accept_both(flag):
    args = dict.fromkeys(["mimic_ce_dims", "include_self", "use_mish", "use_bn_reason"], flag)
    check({"arch": {"type": "CENet", "args": {**args, "trn_cat": flag}}}, "x.json")


def test_a_training_may_start_from_weights_but_its_final_test_may_not():
    check({**EXAMPLE, "init_from": "data/models/x/trained_model.pth"}, "c")
    check({**EXAMPLE, "init_from": None}, "c")
    with pytest.raises(UserError, match=r'"eval_settings.init_from" \(did you mean "init_from"'):
        check({**EXAMPLE, "eval_settings": {"init_from": "x.pth"}}, "c")


def test_a_part_without_its_type_is_refused():
    with pytest.raises(UserError, match=r'"arch.type" is missing'):
        check({"arch": {"args": {}}}, "x.json")
    check({"eval_settings": {"arch": {"args": {}}}}, "x.json")


def test_settings_of_the_optimiser_are_free_but_finite():
    good = {"type": "RAdam", "args": {"lr": 1, "betas": [0.9, 0.99], "foreach": None}}
    check({"optimizer": good}, "x.json")
    with pytest.raises(UserError, match=r"optimizer\.args\.betas"):
        check({"optimizer": {"type": "RAdam", "args": {"betas": [float("nan")]}}}, "x.json")


def test_every_optimiser_and_schedule_of_torch_is_known_or_refused_with_a_reason():
    import torch
    from torch.optim import lr_scheduler

    from trainer.optimisation.optimisers import OPTIMISERS, REFUSED_OPTIMISERS
    from trainer.optimisation.schedules import REFUSED_SCHEDULES, SCHEDULES

    def classes(module, base):
        found = {name: getattr(module, name) for name in module.__all__}
        found = {n: c for n, c in found.items() if isinstance(c, type) and issubclass(c, base)}
        return {name for name, made in found.items() if made is not base}

    optimisers = classes(torch.optim, torch.optim.Optimizer) | {"Ranger"}
    schedules = classes(lr_scheduler, lr_scheduler.LRScheduler) | {
        "CosineAnnealingWithRestartsLR",
        "WarmupCosineLR",
    }
    assert optimisers == {*OPTIMISERS, *REFUSED_OPTIMISERS}
    assert schedules == {*SCHEDULES, *REFUSED_SCHEDULES}


@pytest.mark.parametrize(
    ("section", "kind", "why"),
    [
        ("optimizer", "LBFGS", "several times"),
        ("optimizer", "SparseAdam", "sparse"),
        ("optimizer", "Muon", "matrices"),
        ("lr_scheduler", "SequentialLR", "schedules"),
        ("lr_scheduler", "ChainedScheduler", "schedules"),
        ("lr_scheduler", "LambdaLR", "Python function"),
        ("lr_scheduler", "MultiplicativeLR", "Python function"),
    ],
)
def test_what_no_training_here_can_use_is_refused_with_the_reason(section, kind, why):
    from trainer.build import check_names

    with pytest.raises(UserError, match=rf"{section}.type.*{kind}.*{why}"):
        check_names(Config.from_dict({**EXAMPLE, section: {"type": kind}}))
    final = {"eval_settings": {section: {"type": kind}}}
    with pytest.raises(UserError, match=rf"eval_settings.{section}.type.*{why}"):
        check_names(Config.from_dict({**EXAMPLE, **final}))


@pytest.mark.parametrize("values", [[], "x", None, 3])
def test_a_config_that_is_no_dict_is_refused(values):
    with pytest.raises(UserError, match="must be a dict"):
        Config.from_dict(values, "x")


# ---------------------------------------------------------------------------- inheritance

# Few keys and many kinds of value, so that dicts, lists and numbers meet each other.
plain = st.one_of(st.integers(0, 3), st.lists(st.integers(0, 3), max_size=2), st.none())
nested = st.recursive(plain, lambda v: st.dictionaries(st.sampled_from("abc"), v, max_size=3))
dicts = st.dictionaries(st.sampled_from("abc"), nested, max_size=3)


@settings(deadline=None)
@given(dicts, dicts)
def test_merging_keeps_what_is_above_and_changes_neither(below, above):
    before = copy.deepcopy((below, above))
    merged = merge(below, above)
    assert (below, above) == before
    assert set(merged) == set(below) | set(above)
    for key in merged:
        if key not in above:
            assert merged[key] == below[key]
        elif isinstance(above[key], dict) and isinstance(below.get(key), dict):
            assert merged[key] == merge(below[key], above[key])
        else:
            assert merged[key] == above[key]
    assert merge(merged, above) == merged


def test_merging_shares_no_list_with_what_it_merged():
    below, above = {"a": [1]}, {"b": {"c": [2]}}
    merged = merge(below, above)
    merged["a"].append(3)
    merged["b"]["c"].append(3)
    assert (below, above) == ({"a": [1]}, {"b": {"c": [2]}})


@st.composite
def families(draw):
    """Config files 0.json, 1.json, ...: each inherits from some of those before it."""
    files = {}
    for number in range(draw(st.integers(1, 6))):
        values = draw(dicts)
        parents = draw(st.lists(st.sampled_from(list(files)), max_size=3)) if files else []
        if parents:
            values["inherit_from"] = ",".join(parents)
        files[f"{number}.json"] = values
    return files


@settings(max_examples=200, deadline=None)
@given(families())
def test_inheritance_gives_the_values_of_zsvision(files):
    load_json_config = pytest.importorskip("zsvision.zs_utils").load_json_config
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write(folder, files)
        for name in files:
            expected = load_json_config(name)
            expected.pop("inherit_from", None)
            assert resolve_config(name) == expected


PARENT = {
    "optimizer": {"type": "Ranger", "args": {"lr": 0.1, "weight_decay": 0.01, "k": 5}},
    "lr_scheduler": {"type": "StepLR", "args": {"step_size": 1, "gamma": 0.9}},
    "arch": {"type": "CENet", "args": {"use_ce": "pairwise"}},
}


def resolved_child(folder, child, *between):
    files = {"0.json": PARENT}
    for number, values in enumerate((*between, child), start=1):
        files[f"{number}.json"] = {"inherit_from": str(folder / f"{number - 1}.json"), **values}
    write(folder, files)
    return resolve_config(folder / f"{len(files) - 1}.json")


def test_a_new_type_leaves_out_inherited_args_of_the_old_one(tmp_path):
    child = {
        "optimizer": {"type": "SGD", "args": {"momentum": 0.9}},
        "lr_scheduler": {"type": "ExponentialLR", "args": {"gamma": 0.5}},
        "arch": {"type": "MNNet"},
    }
    assert resolved_child(tmp_path, child) == {
        "optimizer": {"type": "SGD", "args": {"lr": 0.1, "weight_decay": 0.01, "momentum": 0.9}},
        "lr_scheduler": {"type": "ExponentialLR", "args": {"gamma": 0.5}},
        # As published: an architecture lets be what is not its own.
        "arch": {"type": "MNNet", "args": {"use_ce": "pairwise"}},
    }


def test_args_of_the_same_type_and_those_given_after_the_change_stay(tmp_path):
    plateau = {"lr_scheduler": {"type": "ReduceLROnPlateau", "args": {"patience": 3}}}
    args = {"lr_scheduler": {"args": {"factor": 0.5}}}
    same = {"lr_scheduler": {"type": "ReduceLROnPlateau", "args": {"cooldown": 1}}}
    found = resolved_child(tmp_path, same, {"seed": 3}, plateau, args)
    assert found["lr_scheduler"]["args"] == {"patience": 3, "factor": 0.5, "cooldown": 1}
    assert found["optimizer"] == PARENT["optimizer"]
    found = resolved_child(tmp_path, {"lr_scheduler": {"type": "StepLR"}}, plateau, args)
    assert found["lr_scheduler"] == {"type": "StepLR", "args": {}}


@pytest.mark.parametrize("strange", [None, 3, [], {"type": 3}, {"type": "SGD", "args": 4}])
def test_parts_of_a_strange_form_are_left_to_the_check(strange, tmp_path):
    found = resolved_child(tmp_path, {"optimizer": {"type": "Adam"}}, {"optimizer": strange})
    assert found["optimizer"]["type"] == "Adam"
    assert resolved_child(tmp_path, {"optimizer": strange})


def test_a_new_type_on_the_command_line_leaves_out_args_of_the_old_one():
    config = Config.from_dict(PARENT)
    changed = config.with_custom_args(
        "lr_scheduler.args.gamma@0.5+lr_scheduler.type@ExponentialLR+optimizer.type@Rprop"
    )
    assert changed["lr_scheduler"] == {"type": "ExponentialLR", "args": {"gamma": 0.5}}
    assert changed["optimizer"] == {"type": "Rprop", "args": {"lr": 0.1}}
    same = config.with_custom_args("optimizer.type@Ranger+lr_scheduler.type@StepLR")
    assert same.values == config.values


def test_shared_args_are_those_that_the_types_share():
    import inspect

    from trainer.optimisation.optimisers import OPTIMISERS

    for name, made in OPTIMISERS.items():
        everything = {"type": "?", "args": {"lr": 1, "weight_decay": 0, "own": 1}}
        kept = without_args({"optimizer": everything}, "optimizer", name)["optimizer"]["args"]
        parameters = [p for c in made.__mro__[:-1] for p in inspect.signature(c).parameters]
        assert set(kept) == {"lr", "weight_decay"} & set(parameters), name


def test_parents_are_found_beside_their_child_and_from_the_repository(tmp_path, monkeypatch):
    files = {
        "mine/child.json": {"inherit_from": "base.json, configs/demo/base.json"},
        "mine/base.json": {"seed": 5, "compile": True},
    }
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    values = resolve_config("mine/child.json")
    assert values["compile"] is True
    assert values["arch"] == resolve_config(ROOT / "configs/demo/base.json")["arch"]
    # What the working directory holds comes first, as it always did.
    write(tmp_path, {"base.json": {"seed": 6}, "configs/demo/base.json": {}})
    assert resolve_config("mine/child.json") == {"seed": 6}


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({"b.json": {}}, ["a.json does not exist"]),
        ({"train_ce.json": {}, "a.json": {"inherit_from": "train_cee.json"}}, ['"train_ce.json"']),
        ({"a.json": {"inherit_from": "a.json"}}, ["in a loop", "a.json -> a.json"]),
        (
            {
                "a.json": {"inherit_from": "b.json"},
                "b.json": {"inherit_from": "d.json,c.json"},
                "c.json": {"inherit_from": "./b.json"},
                "d.json": {},
            },
            ["b.json -> c.json -> b.json"],
        ),
        ({"a.json": '{\n"seed": 0,\n}'}, ["a.json is not valid JSON", "line 3"]),
        ({"a.json": "[1]"}, ["a.json must hold a JSON dict"]),
        ({"a.json": ""}, ["a.json is not valid JSON"]),
        ({"a.json": {"inherit_from": ["b.json"]}}, ['"inherit_from" must name files']),
        ({"a.json": {"inherit_from": ""}}, ['"inherit_from" must name files']),
        ({"a.json": {"inherit_from": "a\0b.json"}}, ["does not exist"]),
        ({"a.json": {"inherit_from": "b" * 5000}}, ["does not exist"]),
        ({"a.json": {"inherit_from": "b.json"}, "b.json": {"sed": 1}}, ['"sed"', '"seed"']),
    ],
)
def test_a_config_that_cannot_be_read_is_refused(files, parts, tmp_path, monkeypatch):
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refusal:
        Config.from_file("a.json")
    for part in parts:
        assert part in str(refusal.value)


def test_a_missing_config_gets_the_nearest_name(tmp_path, monkeypatch):
    write(tmp_path, {"configs/msrvtt/train-full-ce.json": {}, "configs/msvd/other.json": {}})
    monkeypatch.chdir(tmp_path)
    for wrong in ("configs/msrvt/train-full-ce.json", "configs/msrvtt/train-ful-ce.json"):
        with pytest.raises(UserError, match=r'"configs/msrvtt/train-full-ce\.json"'):
            Config.from_file(wrong)


def test_configs_of_the_repository_are_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config.from_file("configs/demo/train-full-ce.json")
    assert config.name == "demo-train-full-ce"
    assert config.values == Config.from_file(ROOT / "configs/demo/train-full-ce.json").values
    with pytest.raises(UserError, match=r'did you mean "configs/demo/train-full-ce\.json"'):
        Config.from_file("configs/demo/train-ful-ce.json")
    write(tmp_path, {"configs/demo/train-full-ce.json": EXAMPLE})  # which comes first
    assert Config.from_file("configs/demo/train-full-ce.json").values == EXAMPLE


# ------------------------------------------------------------------------------- the class


def test_a_config_is_named_after_its_folder_and_stem(tmp_path, monkeypatch):
    write(tmp_path, {"msrvtt/train-full-ce.json": EXAMPLE})
    monkeypatch.chdir(tmp_path / "msrvtt")
    for path in ("train-full-ce.json", tmp_path / "msrvtt/train-full-ce.json"):
        assert Config.from_file(path).name == "msrvtt-train-full-ce"


def test_values_are_read_by_dotted_keys():
    values = {"data_loader": {"type": "ExpertDataLoader", "args": {"feat_aggregation": {}}}}
    values["data_loader"]["args"]["feat_aggregation"]["s3dg.s3dg.0"] = {"num_segments": None}
    config = Config.from_dict(values, "x")
    segments = "data_loader.args.feat_aggregation.s3dg_.s3dg_.0.num_segments"
    assert config[segments] is None and segments in config
    assert config.get(segments, 3) is None
    assert config.get("data_loader.args.batch_size", 3) == 3
    assert config["data_loader"] == values["data_loader"]
    assert config.get("data_loader.type.more") is None
    with pytest.raises(UserError, match=r'"x".*"trainer.epochs" is missing'):
        config["trainer.epochs"]


def test_a_config_does_not_share_its_values():
    values = copy.deepcopy(EXAMPLE)
    config = Config.from_dict(values, "x")
    final = config.merged({"experts": {"modalities": ["ocr"]}})
    config.values["experts"]["modalities"].append("changed")
    final.values["trainer"]["epochs"] = 99
    assert values == EXAMPLE
    assert config["trainer.epochs"] == 3
    assert final["experts.modalities"] == ["ocr"]


def test_eval_settings_replace_values_of_the_config():
    settings_ = {
        "data_loader": {"args": {"split_name": "full-test", "num_test_captions": 20}},
        "experts": {"modalities": ["ocr"]},
        "disable_gpu": True,
        "tester": {"save_dir": "data/saved/", "verbosity": 2},
    }
    final = Config.from_dict({**EXAMPLE, "eval_settings": settings_}, "x").eval_config()
    assert final.name == "x"
    assert final["data_loader.args.split_name"] == "full-test"
    assert final["data_loader.args.batch_size"] == 64
    assert final["experts"] == {**EXAMPLE["experts"], "modalities": ["ocr"]}
    assert final["disable_gpu"] is True
    assert final.eval_config().values == final.values


@pytest.mark.parametrize("more", [{}, {"eval_settings": False}, {"eval_settings": {}}])
def test_without_eval_settings_the_final_config_is_the_same(more):
    config = Config.from_dict({**EXAMPLE, **more}, "x")
    assert config.eval_config().values == config.values


def test_overrides_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"trainer.epochs"):
        Config.from_dict(EXAMPLE, "x").merged({"trainer": {"epochs": "three"}})


def test_a_saved_config_keeps_its_name_and_values(tmp_path):
    write(tmp_path, {"msrvtt/ce.json": EXAMPLE})
    config = Config.from_file(tmp_path / "msrvtt/ce.json", "trainer.epochs@7")
    config.save(tmp_path / "config.json")
    again = Config.from_file(tmp_path / "config.json")
    assert (again.name, again.values) == ("msrvtt-ce-epochs_7", config.values)
    assert again["trainer.epochs"] == 7
    assert Config.from_dict(config.stored()).name == config.name
    # The name is that run's, not that of configs which inherit its values.
    write(tmp_path, {"msrvtt/new.json": {"inherit_from": str(tmp_path / "config.json")}})
    assert Config.from_file(tmp_path / "msrvtt/new.json").name == "msrvtt-new"


# ------------------------------------------------------------------------------- comparing


def learned(old, new):
    return [".".join(path) for path in what_changes_learning(old, new)]


def schema_keys(kind=SCHEMA, path=()):
    """Every key that a config can have, names of experts by the example "an.expert.0"."""
    if isinstance(kind, MapOf):
        yield from schema_keys(kind.entry, (*path, "an.expert.0"))
    elif isinstance(kind, Section):
        for name, entry in kind.keys.items():
            yield from schema_keys(entry, (*path, name))
    else:
        yield path, isinstance(kind, WithoutEffect)


def nested(path, value):
    for key in reversed(path):
        value = {key: value}
    return value


def test_every_key_changes_what_is_learned_unless_the_table_or_its_kind_says_otherwise():
    keys = dict(schema_keys())
    assert len(keys) > 150 and sum(keys.values()) > 5
    for path, without_effect in keys.items():
        old, new = nested(path, "one"), nested(path, "other")
        name = ".".join(path)
        in_table = any(f"{name}.".startswith(f"{known}.") for known in NOT_LEARNED)
        expected = [] if in_table or without_effect else [name]
        assert differences(old, new) == [name]
        assert learned(old, new) == expected, name
        assert learned(old, old) == []


def test_what_is_not_learned_are_known_keys():
    known = {".".join(path[:n]) for path, _ in schema_keys() for n in range(1, len(path) + 1)}
    assert known >= NOT_LEARNED


@pytest.mark.parametrize(
    "key",
    [
        *("trainer.epochs", "trainer.early_stop", "trainer.save_dir", "trainer.save_only_best"),
        *("trainer.save_period", "trainer.skip_first_n_saves", "trainer.keep_last"),
        *("trainer.checkpoint_minutes", "trainer.tensorboard", "trainer.verbosity"),
        *("metrics", "visualizer.args.top_k", "eval_settings.seed", "eval_mode", "n_gpu"),
        *("challenge_mode", "tester.save_dir", "disable_gpu", "compile", "seed"),
        *(f"data_loader.args.{key}" for key in ("num_workers", "cache_dir", "data_dir")),
        *("data_loader.args.root_feat_folder", "data_loader.args.num_test_captions"),
        *("experiment_name", "log_name", "arch.args.trn_cat"),
    ],
)
def test_length_speed_logging_testing_and_places_are_not_learned(key):
    path = key.split(".")
    assert learned(nested(path, 1), nested(path, 2)) == []


@pytest.mark.parametrize("key", ["optimizer.args.lr", "init_from", "trainer.monitor", "precision"])
def test_keys_that_a_training_depends_on_are_learned(key):
    path = key.split(".")
    assert learned(nested(path, 1), nested(path, 2)) == [key]
    assert learned({}, {path[0]: nested(path[1:], 2)})


def test_added_and_removed_keys_are_differences():
    old = {"a": {"b": 1, "c": {"d": None}}, "e": [1]}
    new = {"a": {"b": 1, "c": {}}, "e": [1, 2], "f": False}
    assert differences(old, new) == ["a.c.d", "e", "f"]
    assert differences(new, old) == ["a.c.d", "e", "f"]


@pytest.mark.parametrize(
    ("kind", "args", "is_tied"),
    [
        ("OneCycleLR", {"max_lr": 1, "total_steps": 10}, True),
        ("OneCycleLR", {"max_lr": 1, "epochs": 10, "steps_per_epoch": 1}, True),
        ("OneCycleLR", {"max_lr": 1, "total_steps": 30}, False),
        ("CosineAnnealingLR", {"T_max": 10}, True),
        ("CosineAnnealingLR", {"T_max": 5}, False),
        ("PolynomialLR", {"total_iters": 10}, True),
        ("StepLR", {"step_size": 10}, False),
    ],
)
def test_more_epochs_are_the_same_training_unless_the_schedule_ends_with_them(kind, args, is_tied):
    short, long = (
        {"trainer": {"epochs": epochs}, "lr_scheduler": {"type": kind, "args": args}}
        for epochs in (10, 20)
    )
    expected = ["trainer.epochs"] if is_tied else []
    assert learned(short, long) == expected
    assert learned(long, short) == expected
