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
from tuckertree.planning import Latency, take_inventory
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


def structure(plan):
    """What a plan does, without what is known of it."""
    return [(x.name, x.method, x.ranks, x.form, x.parameters, x.macs) for x in plan.layers], plan.pruned


def test_a_plan_carried_out_is_the_compression_it_came_from(written):
    whole = tuckertree.compress(MODEL, IMAGE, tuckertree.Budget(params=0.7))
    again = tuckertree.compress(MODEL, IMAGE, read_plan(written(PLAN.dumps())))
    assert structure(again.plan) == structure(whole.plan) == structure(PLAN)
    assert (again.plan.parameters, again.plan.macs) == (whole.plan.parameters, whole.plan.macs)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name
    # Carried out again it is the same plan.
    assert tuckertree.plan(MODEL, IMAGE, again.plan) == again.plan


def test_nothing_is_said_of_a_network_that_is_true_of_another():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        other = networks.small_cnn()
        for parameter in other.parameters():
            torch.nn.init.normal_(parameter)
    lied = replace(PLAN, layers=tuple(replace(layer, bound=-3.0) for layer in PLAN.layers))
    for plan in (PLAN, lied):
        result = tuckertree.compress(other, IMAGE, plan)
        assert result.plan.optimality is None
        for layer in result.plan.compressed:
            assert result.errors[layer.name] <= layer.bound + 1e-5


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
    try:
        result = tuckertree.compress(MODEL, IMAGE, plan)
    except tuckertree.UnreachableTargetError as error:
        assert "nothing to compress" in str(error)  # noqa: PT017
        return
    assert result.plan.parameters == (count_parameters(MODEL), count_parameters(result.model))
    assert result.plan.macs == (count_macs(MODEL, IMAGE), count_macs(result.model, IMAGE))
    for layer in result.plan.compressed:
        assert result.errors[layer.name] <= layer.bound + 1e-5
    assert result.plan.rule["rule"] == "plan"
    assert result.plan.optimality is None
    assert all(layer.parameters[1] < layer.parameters[0] for layer in result.plan.compressed)
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
        (replace(PLAN, layers=(*PLAN.layers, PLAN.layers[0])), "names a layer twice: 0"),
        (with_layer(1, group=("2", "none")), "layer 2: its group names none, which is no layer"),
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


def test_times_are_of_the_network_that_was_measured():
    seconds = (2e-3, 1e-3)
    latency = Latency(
        "torch", 1, 1, 0.1, target=0.5, predicted=0.5, measured=0.5, low=0.5, high=0.5, rounds=1
    )
    timed = replace(with_layer(1, form=(1,), seconds=seconds, method="ht2", ranks=(4, 4, 4)), latency=latency)
    found = tuckertree.plan(MODEL, IMAGE, timed)
    assert found.latency is None
    assert (found.layers[1].form, found.layers[1].seconds) == ((1,), None)
    with pytest.raises(UsageError, match="in 8 bits, which measurements decide"):
        tuckertree.compress(MODEL, IMAGE, replace(timed, latency=replace(latency, precision="int8")))


def thinned_plan():
    model, images = (
        tuckertree.build("demo"),
        torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    )
    example = images[:1]
    rule = tuckertree.Budget(macs=0.5)
    return (
        model,
        example,
        tuckertree.plan(model, example, rule, calibration=images, methods=("channels",)),
    )


def test_channels_go_as_the_plan_says_and_are_counted():
    model, example, plan = thinned_plan()
    assert plan.pruned
    fewer = [replace(each, kept=each.kept[:4]) for each in plan.pruned]
    for pruned in (plan.pruned, plan.pruned[1:], tuple(fewer)):
        found = tuckertree.compress(model, example, replace(plan, pruned=pruned))
        assert found.plan.parameters[1] == count_parameters(found.model)
        assert found.plan.macs[1] == count_macs(found.model, example)
    first = plan.pruned[0]
    larger = replace(first, hidden=replace(first.hidden, channels=first.hidden.channels + 1))
    cheaper = replace(first, hidden=replace(first.hidden, beside=0))
    for hidden in (larger, cheaper):
        with pytest.raises(UsageError, match="cannot go from this network so"):
            tuckertree.compress(model, example, replace(plan, pruned=(hidden,)))
    with pytest.raises(UsageError, match="out twice"):
        tuckertree.compress(model, example, replace(plan, pruned=(first, first)))


def test_a_chain_that_would_be_larger_stays_dense():
    plan = with_layer(1, method="ht2", ranks=(99, 999, 99))
    last = replace(plan.layers[-1], method="svd", ranks=(2,))
    found = tuckertree.plan(MODEL, IMAGE, replace(plan, layers=(*plan.layers[:-1], last)))
    assert (found.layers[1].method, found.layers[1].parameters[0]) == ("dense", found.layers[1].parameters[1])
    assert "would not save parameters" in found.layers[1].reason


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
        }
        for complaint, edit in nonsense.items():
            edited = [edit(line) if i == number else line for i, line in enumerate(lines)]
            with pytest.raises(TuckertreeError, match=rf"plan.json, line {number + 1}: .*{complaint}"):
                read_plan(written("\n".join(edited)))
    lines[2] = lines[2].replace('"ranks"', "ranks")
    with pytest.raises(TuckertreeError, match=r"cannot be read: .*line 3 "):
        read_plan(written("\n".join(lines)))


@pytest.mark.parametrize("key", ['"layers"', '"l\\u0061yers"', '"rule": {"layers": [1]}, "layers"'])
@pytest.mark.parametrize("indent", [None, 1])
def test_lines_are_found_however_it_is_laid_out(written, key, indent):
    data = PLAN.to_json()
    layers = [{**layer, "name": "layers"} for layer in data["layers"]]
    layers[3] = {**layers[3], "method": "magic"}
    rest = {name: value for name, value in data.items() if name not in ("layers", "rule")}
    head = "" if "rule" in key else '"rule": {},'
    text = f"{{{head}\n{key}: {json.dumps(layers, indent=indent)},\n{json.dumps(rest)[1:]}"
    json.loads(text)
    start = next(place for place, part in enumerate(text.splitlines(), 1) if "magic" in part)
    lines = text.splitlines()
    if indent:
        while "{" not in lines[start - 1]:
            start -= 1
    with pytest.raises(TuckertreeError, match=rf"line {start}: layer: method: 'magic'"):
        read_plan(written(text))


@pytest.mark.parametrize("value", ["[" * 100 + "]" * 100, "NaN", "1e999", '{"x": [-Infinity]}'])
def test_a_rule_that_could_not_be_written_again_is_refused(written, value):
    text = PLAN.dumps().replace('"rule": {', f'"rule": {{"extra": {value}, ', 1)
    with pytest.raises(TuckertreeError, match=r"plan.json: plan.rule.extra: (must be finite|is nested)"):
        read_plan(written(text))


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
