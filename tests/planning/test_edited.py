"""A plan that was edited: made true for the network again, or refused by line and layer."""

import json
import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tuckertree
from tests import networks
from tests.strategies import examples
from tuckertree._base.errors import TuckertreeError, UsageError
from tuckertree.core.layers import METHODS, get_method
from tuckertree.measure import count_macs, count_parameters
from tuckertree.planning import take_inventory
from tuckertree.planning.edited import read_plan

IMAGE = torch.zeros(1, 3, 16, 16)
MODEL = networks.small_cnn()
LAYERS = {layer.name: layer for layer in take_inventory(MODEL, IMAGE).layers}
PLAN = tuckertree.plan(MODEL, IMAGE, tuckertree.Budget(params=0.7))


def with_layer(number, **fields):
    layers = list(PLAN.layers)
    layers[number] = replace(layers[number], **fields)
    return replace(PLAN, layers=tuple(layers))


@pytest.fixture
def written(tmp_path):
    def write(text):
        file = tmp_path / "plan.json"
        file.write_text(text)
        return file

    return write


def test_a_plan_carried_out_is_the_compression_it_came_from(written):
    whole = tuckertree.compress(MODEL, IMAGE, tuckertree.Budget(params=0.7))
    again = tuckertree.compress(MODEL, IMAGE, read_plan(written(PLAN.dumps())))
    assert again.plan == whole.plan == PLAN
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


@st.composite
def edits(draw):
    """The plan with another method or other ranks in some layers."""
    layers = []
    for layer in PLAN.layers:
        found = LAYERS[layer.name]
        able = [] if found.skip_reason else [name for name in METHODS if get_method(name).applies(found.spec)]
        method = draw(st.sampled_from(["dense", *able]))
        count = 0 if method == "dense" else get_method(method).rank_count(found.spec)
        ranks = tuple(draw(st.integers(1, 20)) for _ in range(count))
        layers.append(replace(layer, method=method, ranks=ranks))
    return replace(PLAN, layers=tuple(layers))


@examples(25)
@given(edits())
def test_costs_of_an_edited_plan_are_counted_and_its_bounds_hold(plan):
    if not plan.compressed:
        with pytest.raises(TuckertreeError, match="nothing to compress"):
            tuckertree.compress(MODEL, IMAGE, plan)
        return
    result = tuckertree.compress(MODEL, IMAGE, plan)
    assert result.plan.parameters == (count_parameters(MODEL), count_parameters(result.model))
    assert result.plan.macs == (count_macs(MODEL, IMAGE), count_macs(result.model, IMAGE))
    for layer in result.plan.compressed:
        assert result.errors[layer.name] <= layer.bound + 1e-5
    assert result.plan.rule["rule"] == "plan"
    assert result.plan.optimality is None
    # What was made can be carried out again as it is.
    assert tuckertree.plan(MODEL, IMAGE, result.plan) == result.plan


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (with_layer(1, ranks=()), "layer 2: .* positive ranks are needed here"),
        (with_layer(1, method="dense", ranks=(3,)), "layer 2: it is dense, and has ranks"),
        (
            with_layer(1, kernel=(1, 2, 3, 3)),
            r"layer 2: it is conv2d .*; the plan says conv2d \[1, 2, 3, 3\]",
        ),
        (with_layer(1, name="elsewhere"), "layers that this network does not have: elsewhere"),
        (replace(PLAN, layers=PLAN.layers[1:]), "says nothing of the layer 0"),
        (
            with_layer(4, method="tucker2", ranks=(2, 2)),
            "layer 8: 1 positive ranks are needed here",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_by_its_layer(plan, complaint):
    with pytest.raises(UsageError, match=complaint):
        tuckertree.compress(MODEL, IMAGE, plan)


def test_a_layer_that_must_stay_dense_is_refused_with_the_reason():
    model = networks.small_cnn()
    depthwise = torch.nn.Sequential(
        model, torch.nn.Flatten(1), torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(10, 10))
    )
    plan = tuckertree.plan(depthwise, IMAGE, tuckertree.Energy(0.5))
    last = plan.layers[-1]
    assert last.method == "dense"
    edited = replace(plan, layers=(*plan.layers[:-1], replace(last, method="svd", ranks=(1,))))
    with pytest.raises(UsageError, match=f"layer {last.name}: it must stay dense: "):
        tuckertree.compress(depthwise, IMAGE, edited)


def test_options_that_choose_ranks_have_no_meaning_with_a_plan():
    for options in ({"round_to": 4}, {"include": "2"}, {"methods": ("svd",)}, {"objective": "weight"}):
        with pytest.raises(UsageError, match="belong to a rule"):
            tuckertree.compress(MODEL, IMAGE, PLAN, **options)


def test_a_file_is_refused_by_line(written):
    lines = PLAN.dumps().splitlines()
    for number in range(1, 6):
        nonsense = {
            "none of ht2": lambda line: line.replace(
                f'"{json.loads(line.rstrip(","))["method"]}"', '"magic"'
            ),
            "layer.ranks": lambda line: re.sub(r'"ranks": \[.*?\]', '"ranks": ["many"]', line),
            "unknown key 'layer.rnks'": lambda line: line.replace('"ranks"', '"rnks"'),
            "not JSON": lambda line: line.replace('"ranks"', "ranks"),
        }
        for complaint, edit in nonsense.items():
            edited = [edit(line) if i == number else line for i, line in enumerate(lines)]
            with pytest.raises(TuckertreeError, match=rf"plan.json, line {number + 1}: .*{complaint}"):
                read_plan(written("\n".join(edited)))
    # Laid out otherwise, too.
    laid = json.dumps(
        {**PLAN.to_json(), "layers": [{**PLAN.to_json()["layers"][0], "method": "magic"}]}, indent=1
    )
    line = laid[: laid.index("[\n  {")].count("\n") + 2
    with pytest.raises(TuckertreeError, match=f"line {line}: layer: method: 'magic'"):
        read_plan(written(laid))


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"layers": {}}', "1e999", '{"layers": [1]}', "\udcff"])
def test_what_is_no_plan_is_refused(tmp_path, text):
    file = tmp_path / "plan.json"
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(TuckertreeError, match=r"plan\.json"):
        read_plan(file)
    with pytest.raises(TuckertreeError, match="is a folder"):
        read_plan(tmp_path)
    with pytest.raises(TuckertreeError, match="cannot be read: No such file"):
        read_plan(tmp_path / "none.json")
