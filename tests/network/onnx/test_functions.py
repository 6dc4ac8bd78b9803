"""Layers in functions are part of the graph; whatever is no layer is counted with its reason."""

import numpy as np
import pytest

import tuckertree as tt
from tests.network.onnx.cases import (
    constant,
    helper,
    numbers,
    onnx,
    onnx_inventory,
    outputs_of,
    save,
    tensor,
    value,
)
from tests.tools.cli.test_cli import tuckertree
from tuckertree.network.onnx import read_onnx
from tuckertree.network.onnx.functions import inlined
from tuckertree.onnx_models import compress_onnx

FEED = {"x": numbers(2, 8, 9, 9)}


def function(name, inputs, nodes, *, opset=17, domain="pkg", others=(), **options):
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in others)]
    return helper.make_function(domain, name, inputs, ["z"], nodes, imports, **options)


def call(name, *inputs, output="y", domain="pkg", **attributes):
    return helper.make_node(name, [*inputs], [output], domain=domain, **attributes)


def model(path, functions, nodes, weights, domains=("pkg",), **options):
    path = save(
        path,
        nodes,
        [value("x", ["N", 8, 9, 9])],
        [value("y", 4)],
        [tensor(n, w) for n, w in weights.items()],
        functions=functions,
        **options,
    )
    proto = onnx.load(path)
    for domain in domains:
        proto.opset_import.add(domain=domain, version=1)
    path.write_bytes(proto.SerializeToString())
    return path


WEIGHTS = {"w": numbers(32, 8, 3, 3), "v": numbers(32, 32, 3, 3)}
BLOCK = [
    helper.make_node("Conv", ["a", "k"], ["c"], pads=[1] * 4),
    helper.make_node("Relu", ["c"], ["z"]),
]
TWO_CALLS = [call("Block", "x", "w", output="c"), call("Block", "c", "v")]


def padded():
    """A convolution whose pads are an attribute of the function."""
    node = helper.make_node("Conv", ["a", "k"], ["z"], name="conv")
    pads = node.attribute.add()
    pads.name, pads.ref_attr_name, pads.type = "pads", "around", onnx.AttributeProto.INTS
    return node


def nested():
    inner = function("Inner", ["a", "k"], BLOCK, domain="deep")
    nodes = [
        call("Inner", "a", "k", output="m", domain="deep"),
        call("Sigmoid2", "m", output="z", domain="more"),
    ]
    outer = function("Block", ["a", "k"], nodes, others=("deep", "more"))
    plain = function("Sigmoid2", ["a"], [helper.make_node("Sigmoid", ["a"], ["z"])], domain="more")
    return [inner, outer, plain]


FUNCTIONS = {
    "one called twice": ([function("Block", ["a", "k"], BLOCK)], TWO_CALLS),
    "of another opset": ([function("Block", ["a", "k"], BLOCK, opset=16)], TWO_CALLS),
    "with an attribute": (
        [function("Block", ["a", "k"], [padded()], attributes=["around"])],
        [call("Block", "x", "w", output="c", around=[2, 2, 2, 2]), call("Block", "c", "v")],
    ),
    "with a default": (
        [
            function(
                "Block", ["a", "k"], [padded()], attribute_protos=[helper.make_attribute("around", [1] * 4)]
            )
        ],
        [call("Block", "x", "w", output="c"), call("Block", "c", "v", around=[0] * 4)],
    ),
    "in a function": (nested(), TWO_CALLS),
    "without a bias": (
        [function("Block", ["a", "k", "b"], [helper.make_node("Conv", ["a", "k", "b"], ["z"])])],
        [call("Block", "x", "w", output="c"), call("Block", "c", "v", "")],
    ),
    "in a branch": (
        [function("Block", ["a", "k"], BLOCK)],
        [
            constant("yes", np.array(True)),
            helper.make_node(
                "If",
                ["yes"],
                ["c"],
                then_branch=helper.make_graph(
                    [call("Block", "x", "w", output="t")], "t", [], [value("t", 4)]
                ),
                else_branch=helper.make_graph(
                    [call("Block", "x", "w", output="e")], "e", [], [value("e", 4)]
                ),
            ),
            call("Block", "c", "v"),
        ],
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_with_layers_are_part_of_the_graph(name, tmp_path):
    functions, nodes = FUNCTIONS[name]
    domains = ("pkg", "deep", "more") if len(functions) == 3 else ("pkg",)
    path = model(tmp_path / "m.onnx", functions, nodes, WEIGHTS, domains)
    file = inlined(read_onnx(path), FEED)
    assert "Block" not in {n.op_type for n in file.proto.graph.node}
    for expected, output in zip(outputs_of(path, FEED), outputs_of(file.proto, FEED), strict=True):
        np.testing.assert_array_equal(output, expected)
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.6))
    assert len(result.plan.compressed) == (1 if "branch" in name else 2)
    assert any("inlined" in note and "pkg.Block" in note for note in result.output.notes)
    small = onnx.load(tmp_path / "small.onnx")
    assert [f.name for f in small.functions] == (["Sigmoid2"] if len(functions) == 3 else [])
    assert 0 < result.output.error < 1


def test_the_work_in_functions_is_counted(tmp_path):
    path = model(tmp_path / "m.onnx", [function("Block", ["a", "k"], BLOCK)], TWO_CALLS, WEIGHTS)
    code, out, _ = tuckertree("inspect", path)
    assert code == 0
    assert "note: inlined, so that their layers can be compressed: pkg.Block" in out
    assert onnx_inventory(path).macs == 81 * 9 * (8 * 32 + 32 * 32)


def test_functions_without_layers_keep_their_bytes(tmp_path):
    soft = function("Soft", ["a"], [helper.make_node("Sigmoid", ["a"], ["z"])])
    nodes = [call("Soft", "x", output="s"), helper.make_node("Conv", ["s", "w"], ["y"], name="conv")]
    path = model(tmp_path / "m.onnx", [soft], nodes, {"w": WEIGHTS["w"]})
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.6))
    small, before = onnx.load(tmp_path / "small.onnx"), onnx.load(path)
    assert result.output.notes == ()
    assert (small.functions, small.graph.node[0]) == (before.functions, before.graph.node[0])


def test_weights_of_a_function_that_is_called_again_stay_there(tmp_path):
    own = function("Own", ["a"], [constant("k", numbers(8, 8, 3, 3)), *BLOCK])
    nodes = [
        call("Own", "x", output="c"),
        call("Own", "c", output="d"),
        helper.make_node("Conv", ["d", "w"], ["y"]),
    ]
    path = model(tmp_path / "m.onnx", [own], nodes, {"w": WEIGHTS["w"]})
    result = compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.6))
    assert result.output.notes == (
        "pkg.Own stays a function: its own weights are used 2 times",
        "1 Conv left out: inside the function pkg.Own",
    )
    assert onnx.load(tmp_path / "small.onnx").functions == onnx.load(path).functions
    alone = model(tmp_path / "n.onnx", [own], [call("Own", "x")], {})
    assert len(compress_onnx(alone, tmp_path / "o.onnx", tt.Energy(0.4)).plan.compressed) == 1


def test_what_the_inliner_would_change_stays_a_function(tmp_path, monkeypatch):
    path = model(tmp_path / "m.onnx", [function("Block", ["a", "k"], BLOCK)], TWO_CALLS, WEIGHTS)
    import onnx.inliner

    right = onnx.inliner.inline_selected_functions

    def wrong(proto, chosen):
        found = right(proto, chosen)
        del found.graph.node[0].attribute[:]
        return found

    monkeypatch.setattr(onnx.inliner, "inline_selected_functions", wrong)
    with pytest.raises(
        tt.UnreachableTargetError, match=r"functions are not inlined: the output y would.*2 Conv|1 Conv"
    ):
        compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.6))


def test_a_function_that_calls_itself_is_refused(tmp_path):
    nodes = [call("Block", "a", "k", output="c"), helper.make_node("Conv", ["c", "k"], ["z"])]
    path = model(
        tmp_path / "m.onnx", [function("Block", ["a", "k"], nodes, others=("pkg",))], TWO_CALLS, WEIGHTS
    )
    with pytest.raises(tt.TuckertreeError, match=r"calls itself|not a valid ONNX model"):
        onnx_inventory(path)


def nothing(path, nodes, tensors=(), inputs=None, **options):
    path = save(path, nodes, inputs or [value("x", [1, 8, 9, 9])], [value("y", 4)], tensors, **options)
    with pytest.raises(tt.UnreachableTargetError) as caught:
        compress_onnx(path, path.with_name("small.onnx"), tt.Energy(0.5))
    assert not path.with_name("small.onnx").exists()
    return str(caught.value)


def test_products_that_are_no_layers_are_counted_with_their_reasons(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["a"]),
        helper.make_node("MatMul", ["a", "x"], ["b"]),
        helper.make_node("Sigmoid", ["k"], ["g"]),
        helper.make_node("Conv", ["b", "g"], ["y"]),
    ]
    inputs = [value("x", [1, 8, 9, 9]), value("k", [8, 8, 1, 1])]
    message = nothing(tmp_path / "m.onnx", nodes, inputs=inputs)
    assert "2 MatMul left out: both values are computed; 1 Conv left out: its weight is computed" in message
    message = nothing(
        tmp_path / "v.onnx", [helper.make_node("MatMul", ["x", "v"], ["y"])], [tensor("v", numbers(9))]
    )
    assert "1 MatMul left out: its weight is a vector" in message


def test_a_product_with_its_constant_on_the_left_is_listed(tmp_path):
    nodes = [helper.make_node("MatMul", ["w", "x"], ["y"], name="left")]
    path = save(
        tmp_path / "m.onnx", nodes, [value("x", [1, 8, 9, 5])], [value("y", 4)], [tensor("w", numbers(7, 9))]
    )
    inventory = onnx_inventory(path)
    (layer,) = inventory.layers
    assert layer.skip_reason == "its weight is on the left"
    assert layer.spec.kernel_shape == (7, 9)
    assert layer.macs == inventory.macs == 8 * 7 * 9 * 5


def test_a_weight_drawn_at_random_is_no_constant(tmp_path):
    nodes = [
        helper.make_node("RandomNormalLike", ["w"], ["r"]),
        helper.make_node("Conv", ["x", "r"], ["y"]),
    ]
    message = nothing(tmp_path / "m.onnx", nodes, [tensor("w", numbers(8, 8, 3, 3))])
    assert "1 Conv left out: its weight is computed" in message


def test_layers_of_other_domains_are_counted(tmp_path):
    node = helper.make_node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft", activation="Relu")
    path = save(
        tmp_path / "m.onnx", [node], [value("x", [1, 8, 9, 9])], [value("y", 4)], [tensor("w", WEIGHTS["w"])]
    )
    proto = onnx.load(path)
    proto.opset_import.add(domain="com.microsoft", version=1)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(
        tt.UnreachableTargetError, match=r"1 FusedConv left out: of the domain com\.microsoft"
    ):
        compress_onnx(path, tmp_path / "small.onnx", tt.Energy(0.5))


def branches(then, otherwise):
    graphs = [
        helper.make_graph(nodes, name, [], [value(nodes[-1].output[0], 4)])
        for nodes, name in ((then, "t"), (otherwise, "e"))
    ]
    yes = constant("yes", np.array(True))
    return [
        yes,
        helper.make_node("If", ["yes"], ["y"], name="branch", then_branch=graphs[0], else_branch=graphs[1]),
    ]


def test_layers_in_subgraphs_are_listed_wherever_their_weights_are(tmp_path):
    then = [
        constant("k", numbers(8, 8, 3, 3)),
        helper.make_node("Conv", ["x", "k"], ["c"], name="same"),
        helper.make_node("Transpose", ["w"], ["t"]),
        helper.make_node("Conv", ["c", "t"], ["d"], name="turned"),
        helper.make_node("Mul", ["d", "d"], ["m"]),
        helper.make_node("MatMul", ["m", "d"], ["end"]),
    ]
    otherwise = [helper.make_node("Conv", ["x", "own"], ["e"], name="same")]
    nodes = branches(then, otherwise)
    branch = next(a.g for a in nodes[1].attribute if a.name == "else_branch")
    branch.initializer.append(tensor("own", numbers(16, 8, 3, 3)))
    path = save(
        tmp_path / "m.onnx",
        nodes,
        [value("x", [1, 8, 9, 9])],
        [value("y", 4)],
        [tensor("w", numbers(3, 3, 8, 4))],
    )
    inventory = onnx_inventory(path)
    assert {layer.name: layer.spec.kernel_shape for layer in inventory.layers} == {
        "same": (16, 8, 3, 3),
        "same_2": (8, 8, 3, 3),
        "turned": (4, 8, 3, 3),
    }
    assert {layer.skip_reason for layer in inventory.layers} == {"inside the If branch"}
    assert inventory.notes == ("1 MatMul left out: inside the If branch, both values are computed",)


def logarithm(path):
    """The logarithm of a convolution that is positive for what the model is made for."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], name="mel"), helper.make_node("Log", ["c"], ["y"])]
    weights = [tensor("w", np.abs(WEIGHTS["w"]))]
    return save(path, nodes, [value("x", ["N", 8, 9, 9])], [value("y", 4)], weights)


@pytest.mark.filterwarnings("ignore:fitting does not bring")  # of noise there is nothing to learn
def test_nan_on_a_made_up_input_is_not_the_models_fault(tmp_path):
    path, small = logarithm(tmp_path / "m.onnx"), tmp_path / "small.onnx"
    code, _, err = tuckertree("compress", path, "--macs", 0.5, "-o", small)
    assert code == 0
    assert "became NaN or infinite; the input was random" in err
    assert "--calibration" in err
    result = compress_onnx(path, small, tt.Budget(macs=0.5), input_values={"x": (0, 1)}, overwrite=True)
    assert result.output.outputs.not_finite == 0
    images = [{"x": np.abs(numbers(8, 8, 9, 9, seed=k))} for k in range(4)]
    assert not compress_onnx(path, small, tt.Budget(macs=0.5), calibration=images, overwrite=True).warnings


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
def test_an_output_that_is_half_wrong_is_a_warning(seeds, tmp_path):
    """A weight of rank one keeps all of itself at that rank, a sum of three does not."""
    weight = sum(
        numbers(32, 1, 1, 1, seed=k) * numbers(1, 8, 1, 1, seed=k) * numbers(1, 1, 3, 3) for k in seeds
    )
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
    path = save(
        tmp_path / "m.onnx", nodes, [value("x", ["N", 8, 9, 9])], [value("y", 4)], [tensor("w", weight)]
    )
    result = compress_onnx(path, tmp_path / "s.onnx", tt.Ranks({"*": 1}))
    wrong = len(seeds) > 1
    assert (result.output.error > 0.5) == wrong
    assert any("the outputs differ by" in line for line in result.warnings) == wrong


def test_the_whole_message_of_onnx_runtime_is_shown(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first"),
        helper.make_node("Add", ["c", "x"], ["y"], name="sum"),
    ]
    path = save(
        tmp_path / "m.onnx", nodes, [value("x", 4)], [value("y", 4)], [tensor("w", numbers(8, 8, 3, 3))]
    )
    with pytest.raises(tt.TuckertreeError) as caught:
        onnx_inventory(path, input_size=(8, 9, 9))
    assert "Name:'sum'" in str(caught.value)
    assert "7 by 9" in str(caught.value) or "9 by 7" in str(caught.value)
    assert "\n" not in str(caught.value)
