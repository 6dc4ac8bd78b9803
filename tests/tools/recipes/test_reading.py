"""Recipes are read strictly, as data alone, and changed by typed overrides."""

import pytest

from tests.tools.recipes.cases import TEXT
from tuckertree._base.errors import UsageError
from tuckertree.planning import Budget, Energy, ErrorBound, Ranks
from tuckertree.tools.recipes import load_recipe, parse_overrides, training_overrides

pytest.importorskip("yaml")


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "demo.yaml"

    def write(text=TEXT, **changes):
        for old, new in changes.items():
            line = next(line for line in text.splitlines() if line.strip().startswith(f"{old}:"))
            text = text.replace(line, new)
        path.write_text(text)
        return path

    return write


def test_what_is_read_is_what_is_written(recipe):
    loaded = load_recipe(recipe())
    assert loaded.text == TEXT
    assert loaded.recipe.training.lr == 1e-3  # which YAML 1.1 takes for text
    assert loaded.recipe.training.validation == 0.0
    assert loaded.recipe.rivals[0].top1_change == -1.0
    assert len(loaded.recipe.steps) == 1
    assert loaded.sha256 != load_recipe(recipe(name="name: Another")).sha256


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("energy: 0.9", Energy(0.9)),
        ("error: 0.3", ErrorBound(0.3)),
        ("budget: {params: 2x, macs: 0.5}", Budget(params="2x", macs=0.5)),
        (
            "ranks: {layer1.*: 8, layer2.*: [4, 5, 6], linear: 0.9}",
            Ranks({"layer1.*": 8, "layer2.*": (4, 5, 6), "linear": 0.9}),
        ),
        ("energy_for: {params: 2x}", None),
    ],
)
def test_every_rule(recipe, text, rule):
    assert load_recipe(recipe(energy_for=f"  {text}")).recipe.compression.rule() == rule


BAD = {
    "an unknown key": ({"name": "nmae: Demo"}, "unknown key 'nmae'; known are name, source"),
    "an unknown key inside": (
        {"training": "training: {epochs: 1, learning_rate: 1}"},
        "unknown key 'training.learning_rate'",
    ),
    "a missing key": ({"network": ""}, "the key 'network' is missing"),
    "text for a number": (
        {"training": "training: {epochs: many}"},
        "training.epochs: must be a whole number, not 'many'",
    ),
    "a fraction for an integer": (
        {"training": "training: {epochs: 1.5}"},
        "training.epochs: must be a whole number, not 1.5",
    ),
    "true for a number": (
        {"training": "training: {epochs: true}"},
        "training.epochs: must be a whole number",
    ),
    "a number for text": ({"name": "name: 3"}, "name: must be a text, not 3"),
    "a list for a mapping": ({"source": "source: [a]"}, "source: must be a mapping of work, table, row"),
    "a text for a list": (
        {"energy_for": "  energy: 0.5\n  exclude: linear"},
        "compression.exclude: must be a list",
    ),
    "not finite": ({"training": "training: {epochs: 1, lr: .inf}"}, "training.lr: must be finite"),
    "no possible setting": (
        {"training": "training: {epochs: 1, optimizer: lbfgs}"},
        "training: optimizer must be one of sgd",
    ),
    "an unknown kind of data": (
        {"data": "data: {kind: mnist, train_images: 1, test_images: 1}"},
        "data.kind: must be cifar10 or imagenet, not 'mnist'",
    ),
    "a key given twice": (
        {"training": "training: {epochs: 1, lr: 1, epochs: 2}"},
        "the key 'epochs' is given twice, in line 7",
    ),
    "no rule": ({"energy_for": "  first: svd"}, "compression: give exactly one of energy, energy_for"),
    "two rules": (
        {"energy_for": "  energy: 0.5\n  error: 0.5"},
        "compression: give exactly one of energy, energy_for",
    ),
    "an energy above one": (
        {"energy_for": "  energy: 1.5"},
        "compression: energy must be in (0, 1], got 1.5",
    ),
    "no reduction": (
        {"energy_for": "  energy_for: {params: huge}"},
        "compression.energy_for: params must be",
    ),
    "a rank of another type": (
        {"energy_for": "  ranks: {conv1: [1, a]}"},
        "compression.ranks.conv1: must be a whole number or a number or a list",
    ),
    "an objective without images": (
        {"energy_for": "  budget: {params: 0.5}\n  objective: outputs"},
        "compression: objective 'outputs' needs calibration images",
    ),
    "an objective without a budget": (
        {"energy_for": "  energy: 0.5\n  objective: weight"},
        "compression: an objective belongs to a budget",
    ),
    "an unknown network": (
        {"network": "network: cifar10:resnet21"},
        "network: unknown model 'cifar10:resnet21'",
    ),
    "a network to import": (
        {"network": "network: os:getcwd\nweights: a.safetensors"},
        "network: 'os:getcwd' must begin with",
    ),
    "no weights": ({"network": "network: cifar10:resnet20"}, "the key 'weights' is missing"),
    "weights elsewhere": (
        {"network": "network: demo\nweights: ../a.safetensors"},
        "weights: must be the name of a .safetensors file, without a folder",
    ),
    "stages and compression": (
        {"network": "network: demo\nstages: [{compression: {energy: 0.5}}]"},
        "give either compression (and training), or stages",
    ),
    "stages that do not grow": (
        {
            "compression": "stages:",
            "energy_for": "- {compression: {budget: {params: 2x}}}\n"
            "- {compression: {energy_for: {params: 0.5, macs: 3x}}}",
            "training": "",
        },
        "stages: each must reduce params further than those before it",
    ),
    "a fault in a stage": (
        {"network": "network: demo\nstages: [{compression: {energy: 0.5}}, {compression: {energy: no}}]"},
        "stages.1.compression.energy: must be a number, not False",
    ),
    "an unknown augmentation": (
        {"training": "training: {epochs: 1, augment: mixup}"},
        "training: augment must be one of",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_recipes_get_one_line_with_file_and_key(case, recipe):
    changes, message = BAD[case]
    if case == "an unknown network":
        changes = {"network": changes["network"] + "\nweights: a.safetensors"}
    path = recipe(**changes)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


# Fifteen lists of four of the list before: a thousand million texts.
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}, *a{i}, *a{i}]\n" for i in range(15))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a mapping of name, source"),
        (b"- name: Demo\n", "must be a mapping of name, source, network"),
        (b"just text", "must be a mapping of name, source"),
        (b"name: [1, 2\n", "line 2"),
        (b"\x93NUMPY\x01\x00\xff\xfe", "is not text in UTF-8"),
        (b"name: \x00\x01", "is not a recipe"),
        (b"name: !!python/object/apply:os.system [touch ran]\n", "could not determine a constructor"),
        (b"name: !!python/name:os.system\n", "could not determine a constructor"),
        (b"name: 2020-99-99\n", "is not a recipe"),
        (b"name: 2020-01-01\n" + TEXT.encode().partition(b"\n")[2], "name: must be a text, not a date"),
        (b"{{a: b}: c}\n", "is not a recipe"),
        (b"1: 2\n", "unknown key '1'"),
        (b"[" * 1_500, "is not a recipe"),
        (BOMB.encode() + b"name: *a15\n", "unknown key 'a0'"),
        (f"{BOMB}{TEXT}".replace("name: Demo", "name: *a15").encode(), "unknown key 'a0'"),
        (b"name: *nothing\n", "undefined alias"),
        (b"#" * (2**20 + 1), "larger than any recipe"),
    ],
)
def test_what_is_no_recipe_gets_one_line_and_runs_nothing(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert [p.name for p in tmp_path.iterdir()] == ["bad.yaml"]


def test_a_missing_recipe_and_a_folder(tmp_path):
    with pytest.raises(UsageError, match=r"nosuch.yaml cannot be read: No such file"):
        load_recipe(tmp_path / "nosuch.yaml")
    with pytest.raises(UsageError, match="is a folder; give a file"):
        load_recipe(tmp_path)


def test_overrides_have_the_type_of_their_field(recipe):
    path = recipe()
    changed = load_recipe(path, parse_overrides(["training.lr=0.05", "compression.energy_for.params=2x"]))
    assert changed.recipe.training.lr == 0.05
    assert changed.recipe.training.epochs == 1
    assert changed.recipe.compression.energy_for.params == "2x"
    assert changed.text == TEXT
    assert changed.overrides == {"training.lr": 0.05, "compression.energy_for.params": "2x"}
    assert load_recipe(path, parse_overrides(["training.lr=1e-2"])).recipe.training.lr == 0.01
    swapped = parse_overrides(["compression.energy=0.8", "compression.energy_for=null"])
    assert load_recipe(path, swapped).recipe.compression.rule() == Energy(0.8)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.lr=fast", "changed by training.lr: training.lr: must be a number, not 'fast'"),
        ("training.epochs=2.5", "training.epochs: must be a whole number, not 2.5"),
        ("training.speed=2", "unknown key 'training.speed'"),
        ("nosuch.lr=2", "the recipe has no key 'nosuch'"),
        ("rivals.7.name=x", "the recipe has no key 'rivals.7'"),
        ("name.first=x", "the recipe has no key 'name.first'"),
        ("training.lr", "a change must be like training.lr=0.05, not 'training.lr'"),
        ("=3", "a change must be like"),
        ("training.lr=[", "is not YAML"),
        ("network=nosuch", "the key 'weights' is missing; only the network demo has"),
    ],
)
def test_bad_overrides_get_one_line(setting, message, recipe):
    path = recipe()
    with pytest.raises(UsageError) as caught:
        load_recipe(path, parse_overrides([setting]))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_given_twice_is_refused():
    with pytest.raises(UsageError, match="changed twice"):
        parse_overrides(["training.lr=1", "training.lr=2"])


def test_training_overrides_reach_every_stage_that_trains(recipe):
    stages = """\
stages:
  - {compression: {energy: 0.9}, training: {epochs: 2}}
  - {compression: {energy: 0.8}}
  - {compression: {energy: 0.7}, training: {epochs: 3}}
"""
    text = TEXT.replace("compression:\n  energy_for: {params: 1.5x}\n", stages)
    path = recipe("\n".join(line for line in text.splitlines() if not line.startswith("training")))
    overrides = training_overrides(path, {"epochs": 1})
    assert overrides == {"stages.0.training.epochs": 1, "stages.2.training.epochs": 1}
    steps = load_recipe(path, overrides).recipe.steps
    assert [step.training and step.training.epochs for step in steps] == [1, None, 1]
    idle = recipe(training="")
    assert training_overrides(idle, {}) == {}
    with pytest.raises(UsageError, match="trains nothing; leave out epochs"):
        training_overrides(idle, {"epochs": 1})
