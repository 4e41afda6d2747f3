"""Overrides from the command line."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_config import EXAMPLE
from utils.config import Config
from utils.config_kinds import join_key, split_key
from utils.custom_args import parse_custom_args
from utils.errors import UserError

VALUES = {
    **copy.deepcopy(EXAMPLE),
    "optimizer": {"type": "RAdam", "args": {"lr": 0.001}},
    "eval_settings": {"data_loader": {"args": {"split_name": "test"}}},
}
VALUES["arch"]["args"]["vlad_clusters"] = {"audio": 4, "text": 8}


def override(text):
    return Config.from_dict(VALUES, "demo-ce").with_custom_args(text)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("arch.args.l2renorm@false", "arch.args.l2renorm", False),
        ("arch.args.l2renorm@False", "arch.args.l2renorm", False),
        ("arch.args.l2renorm@0", "arch.args.l2renorm", False),
        ("arch.args.l2renorm@true", "arch.args.l2renorm", True),
        ("arch.args.use_mish@0", "arch.args.use_mish", 0),
        ("arch.args.use_mish@true", "arch.args.use_mish", True),
        ("arch.args.use_ce@", "arch.args.use_ce", ""),
        ("trainer.epochs@12", "trainer.epochs", 12),
        ("loss.args.margin@1e-3", "loss.args.margin", 0.001),
        ("loss.args.margin@1e+3", "loss.args.margin", 1000.0),
        ("trainer.epochs=12", "trainer.epochs", 12),
        ("loss.args.margin = 1e+3", "loss.args.margin", 1000.0),
        ("data_loader.args.split_name=a@b=c", "data_loader.args.split_name", "a@b=c"),
        ("data_loader.args.split_name@a=b@c", "data_loader.args.split_name", "a=b@c"),
        ("loss.args.margin@.5", "loss.args.margin", 0.5),
        ("data_loader.args.cache_dir@none", "data_loader.args.cache_dir", None),
        ("data_loader.args.cache_dir@/tmp/c_+_+", "data_loader.args.cache_dir", "/tmp/c++"),
        ("data_loader.args.split_name@10", "data_loader.args.split_name", "10"),
        ('data_loader.args.split_name@"null"', "data_loader.args.split_name", "null"),
        ("data_loader.args.split_name@a@b", "data_loader.args.split_name", "a@b"),
        ("experts.modalities@ocr,face", "experts.modalities", ["ocr", "face"]),
        ("experts.modalities@ocr,", "experts.modalities", ["ocr"]),
        ('experts.modalities@["ocr"]', "experts.modalities", ["ocr"]),
        ("optimizer.args.eps@1e-8", "optimizer.args.eps", 1e-8),
        ("optimizer.args.foreach@null", "optimizer.args.foreach", None),
        ("optimizer.args.betas@[0.9, 0.99]", "optimizer.args.betas", [0.9, 0.99]),
        ("optimizer.args.mode@fast", "optimizer.args.mode", "fast"),
        ("eval_settings@false", "eval_settings", False),
        (
            "eval_settings.data_loader.args.split_name@val",
            "eval_settings.data_loader.args.split_name",
            "val",
        ),
        ('arch.args.vlad_clusters@{"text": 3}', "arch.args.vlad_clusters", {"text": 3}),
        ("arch.args.vlad_clusters.face@3", "arch.args.vlad_clusters.face", 3),
        ("visualizer.args.num_samples@0", "visualizer.args.num_samples", 0),
    ],
)
def test_a_value_is_read_as_its_key_wants_it(text, key, value):
    config = override(text)
    assert config[key] == value and type(config[key]) is type(value)
    # Nothing else changes.
    expected = Config.from_dict(VALUES, "x").values
    place, changed = expected, config.values
    for part in split_key(key)[:-1]:
        place, changed = place.setdefault(part, {}), changed[part]
    place[split_key(key)[-1]] = changed[split_key(key)[-1]]
    assert config.values == expected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("trainer.epochs", ["not of the form", "key.sub@value+key2@value2"]),
        ("trainer.epochs@3+", ["not of the form"]),
        ("@3", ["not of the form"]),
        ("=3", ["not of the form"]),
        ("seed=1+seed@2", ['"seed" is given twice']),
        ("trainer..epochs@3", ["not of the form"]),
        ("seed@1+seed@2", ['"seed" is given twice']),
        ("trainer.epoch@3", ['"trainer.epoch"', '"trainer.epochs"']),
        ("trainr.epochs@3", ['"trainr"', '"trainer"']),
        ("trainer.epochs.more@3", ['"trainer.epochs.more"']),
        ("trainer.epochs@three", ["trainer.epochs", "a whole number", '"three"']),
        ("trainer.epochs@0", ["at least 1"]),
        ("loss.args.margin@nan", ["a finite number"]),
        ("loss.args.margin@1_0", ["a finite number"]),
        ("arch.args.l2renorm@no", ["true or false"]),
        ("arch.args.vlad_clusters.audoi@3", ['"audoi"', '"audio"']),
        ("arch.args.vlad_clusters@{3", ["must be a dict"]),
        ("data_loader.args.feat_aggregation.ocr.fps@3", ["ocr", "no expert of this config"]),
        ("data_loader.args.feat_aggregation.face.fsp@3", ["face.fsp", "face.fps"]),
        ("arch@{}", ['"arch.type" is missing']),
    ],
)
def test_an_override_that_does_not_fit_is_refused(text, parts):
    with pytest.raises(UserError) as refusal:
        override(text)
    for part in parts:
        assert part in str(refusal.value)


def test_a_key_below_false_is_refused():
    config = Config.from_dict({"eval_settings": False}, "x")
    with pytest.raises(UserError, match='"eval_settings" is false'):
        config.with_custom_args("eval_settings.seed@3")


def test_a_new_expert_may_be_set_up_in_any_order():
    config = override("arch.args.vlad_clusters.ocr@3+experts.modalities@ocr,audio")
    assert config["arch.args.vlad_clusters"] == {"audio": 4, "text": 8, "ocr": 3}


def test_overrides_may_stand_on_lines_of_their_own():
    changed = override("trainer.epochs@12+\n\tloss.args.margin@0.5\n")
    assert (changed["trainer.epochs"], changed["loss.args.margin"]) == (12, 0.5)


def test_nothing_to_override():
    for text in (None, "", "  "):
        config = override(text)
        assert (config.name, config.values) == ("demo-ce", VALUES)


texts = st.text(st.characters(exclude_categories=["C"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.floats(allow_nan=False, width=32),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3),
    max_leaves=6,
).filter(lambda v: "Infinity" not in json.dumps(v))
parts = st.from_regex(r"[A-Za-z0-9.-]*[A-Za-z0-9-]", fullmatch=True)


@settings(deadline=None)
@given(st.lists(parts, min_size=1, max_size=4))
def test_keys_survive_being_joined_and_split(path):
    assert split_key(join_key(tuple(path))) == tuple(path)


@settings(deadline=None)
@given(st.dictionaries(parts.map(lambda p: "k" + p), json_values, min_size=1, max_size=4))
def test_any_json_value_survives_the_command_line(settings_of_optimizer):
    text = "+".join(
        join_key(("optimizer", "args", name)) + "@" + json.dumps(value).replace("+", "_+")
        for name, value in settings_of_optimizer.items()
    )
    args = override(text)["optimizer.args"]
    assert args == {"lr": 0.001, **settings_of_optimizer}


@settings(deadline=None)
@given(texts, texts)
def test_the_name_is_one_safe_part_of_a_path_and_tells_values_apart(one, other):
    names = [
        override(f"tester.save_dir@{json.dumps(t).replace('+', '_+')}").name for t in (one, other)
    ]
    for name in names:
        assert name.startswith("demo-ce-save_dir_")
        assert not set(name) - set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,=_-"
        )
    assert (names[0] == names[1]) == (one == other)


def test_the_name_says_what_was_overridden():
    assert override("trainer.epochs@3+optimizer.args.lr@0.01").name == "demo-ce-epochs_3-lr_0.01"
    assert override("experiment_name@mine").name == "mine"
    assert len(override(f"experts.modalities@{','.join(['audio'] * 99)}").name) < 80
    many = "+".join(f"optimizer.args.setting_{number}@{number}" for number in range(99))
    assert len(override(many).name) < 200
    assert override(many).name != override(many.replace("@98", "@99")).name


def test_overrides_keep_the_order_in_which_they_were_given():
    overrides = parse_custom_args("trainer.epochs@3+seed@1")
    assert [(o.key, o.text) for o in overrides] == [("trainer.epochs", "3"), ("seed", "1")]
