"""The recipes of this repository, and the page that is made of them."""

import re
from pathlib import Path

import pytest

from tuckertree._base.errors import UnreachableTargetError
from tuckertree._base.names import UntrustedName
from tuckertree.planning import Budget, make_plan, survey, take_inventory
from tuckertree.tools.models import resolve
from tuckertree.tools.opening import open_model
from tuckertree.tools.recipes import Paper, load_recipe, reproduction_page
from tuckertree.tools.recipes.energies import energy_for

pytest.importorskip("yaml")
pytest.importorskip("torchvision")

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
SCHEDULES = sorted((ROOT / "recipes").glob("schedule-*.yaml"))


def name(path):
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_every_recipe_can_be_run_here(path):
    recipe = load_recipe(path).recipe
    assert resolve(recipe.network).name == recipe.network
    assert recipe.data.kind == path.parent.name
    assert all(stage.training for stage in recipe.steps)
    assert all(stage.training.validation == 0 for stage in recipe.steps)  # no epoch is picked
    assert recipe.paper != Paper() or recipe.rivals or recipe.note  # there is something to compare with


@pytest.mark.parametrize("path", RECIPES, ids=name)
@pytest.mark.parametrize("schedule", [path.stem.removeprefix("schedule-") for path in SCHEDULES])
def test_every_recipe_can_be_carried_out_by_every_schedule(path, schedule):
    loaded = load_recipe(path, schedule=schedule)
    (step,) = loaded.recipe.steps
    assert step.training.validation == 0
    assert step.compression.calibration > 0
    budget, paper = step.compression.budget, loaded.recipe.paper
    for kind in ("params", "macs"):
        published = getattr(paper, kind)
        assert not published or factor(getattr(budget, kind)) == published


def test_there_is_a_recipe_for_each_row_of_the_paper():
    papers = [(found.network, found.paper) for found in (load_recipe(path).recipe for path in RECIPES)]
    rows = {(network, paper.energy): paper for network, paper in papers if paper.energy is not None}
    networks = {network for network, _ in rows}
    assert len(rows) == 25
    for network in networks:
        table = [rows[row] for row in sorted(rows, key=lambda row: -row[1]) if row[0] == network]
        for kind in ("params", "macs"):  # lower energies reduce further
            factors = [getattr(paper, kind) for paper in table]
            assert len(factors) == 5
            assert factors == sorted(factors)


def factor(text):
    return 0.0 if text is None else float(text.removesuffix("x"))


@pytest.mark.parametrize(
    "path", [p for p in RECIPES if "resnet" in p.stem and "cifar10" in p.parts], ids=name
)
def test_recipes_reach_their_reduction_on_the_real_weights(path, real_data):
    recipe = load_recipe(path).recipe
    weights = real_data / "models" / recipe.weights
    if not weights.is_file():
        pytest.skip(f"there is no {weights.name}")
    opened = open_model(UntrustedName(recipe.network), weights=weights)
    compression = recipe.steps[0].compression  # further stages depend on training
    wanted, options = compression.energy_for, compression.options()
    energy = energy_for(
        opened.model, opened.example_inputs, Budget(params=wanted.params, macs=wanted.macs), options
    )
    inventory = take_inventory(opened.model, opened.example_inputs)
    plan = make_plan(inventory, survey(opened.model, inventory, options), energy, options)
    reached = {"params": plan.parameters[0] / plan.parameters[1], "macs": plan.macs[0] / plan.macs[1]}
    assert reached["params"] == pytest.approx(factor(wanted.params), rel=0.01)
    for rival in recipe.rivals:
        assert reached["params"] >= (rival.params or 0)
        assert reached["macs"] >= (rival.macs or 0)


def test_the_page_is_what_the_recipes_and_results_make():
    results = ROOT / "docs/results"
    page = (results / "reproduction.md").read_text(encoding="utf-8")
    assert page == reproduction_page(ROOT / "recipes", results / "reproduction"), (
        "run python scripts/reproduction_page.py"
    )


def test_the_recipe_of_the_documentation_is_one(tmp_path):
    text = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    whole = [block for block in blocks if block.startswith("name:")]
    stages = [block for block in blocks if block.startswith("stages:")]
    assert len(whole) == len(stages) == 1
    path = tmp_path / "documented.yaml"
    path.write_text(whole[0])
    assert load_recipe(path).recipe.compression.energy_for.params == "3.82x"
    begin, end = whole[0].index("compression:"), whole[0].index("paper:")
    path.write_text(whole[0][:begin] + stages[0] + whole[0][end:])
    assert [stage.training.epochs for stage in load_recipe(path).recipe.steps] == [50, 100]


def test_an_energy_that_does_not_exist_is_refused():
    opened = open_model(UntrustedName("demo"))
    options = load_recipe(RECIPES[0]).recipe.compression.options()
    with pytest.raises(
        UnreachableTargetError, match=r"no energy reduces this network so far; the least is 0\.0"
    ):
        energy_for(opened.model, opened.example_inputs, Budget(params="5000x"), options)
