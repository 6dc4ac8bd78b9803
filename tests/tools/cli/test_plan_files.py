"""`compress --dry-run` prints a plan, `compress --plan` carries it out."""

import json

import pytest

from tests.tools.cli.test_cli import tuckertree
from tuckertree.io import read_config
from tuckertree.planning import Plan


def test_a_dry_run_writes_nothing_and_its_plan_is_carried_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = tuckertree("compress", "demo", "--macs", "2x", "--dry-run")
    assert (code, err) == (0, "")
    assert "MACs        40.6M -> " in out
    assert "nothing was made or written" in out
    code, out, _ = tuckertree("compress", "demo", "--macs", "2x", "--dry-run", "--json")
    assert code == 0
    assert list(tmp_path.iterdir()) == []
    plan = Plan.loads(out)
    (tmp_path / "plan.json").write_text(out)
    code, out, _ = tuckertree("compress", "demo", "--plan", "plan.json", "--output", "made", "--json")
    assert code == 0
    made = read_config(tmp_path / "made").plan
    assert [(x.name, x.method, x.ranks) for x in made.layers] == [
        (x.name, x.method, x.ranks) for x in plan.layers
    ]
    assert (made.parameters, made.macs) == (plan.parameters, plan.macs)
    assert json.loads(out)["plan"]["rule"] == {"rule": "plan", "plan": dict(plan.rule)}


def test_an_edited_plan_is_carried_out(tmp_path):
    _, out, _ = tuckertree("compress", "demo", "--energy", 0.8, "--dry-run", "--json")
    lines = out.splitlines()
    number = next(i for i, line in enumerate(lines) if '"layer2.1.conv1"' in line)
    layer = json.loads(lines[number].rstrip(","))
    file = tmp_path / "plan.json"
    lines[number] = json.dumps({**layer, "ranks": [4, 5, 6]}) + ","
    file.write_text("\n".join(lines))
    assert tuckertree("compress", "demo", "--plan", file, "--output", tmp_path / "made")[0] == 0
    made = {layer.name: layer for layer in read_config(tmp_path / "made").plan.layers}
    assert made["layer2.1.conv1"].ranks == (4, 5, 6)
    lines[number] = json.dumps({**layer, "ranks": [4, 5]}) + ","
    file.write_text("\n".join(lines))
    code, _, err = tuckertree("compress", "demo", "--plan", file, "--output", tmp_path / "other")
    assert code == 2
    assert "the plan's layer layer2.1.conv1: 3 positive ranks" in err
    lines[number] = lines[number].replace('"ht2"', '"magic"')
    file.write_text("\n".join(lines))
    code, _, err = tuckertree("compress", "demo", "--plan", file, "--output", tmp_path / "other")
    assert code == 1
    assert f"plan.json, line {number + 1}: layer: method: 'magic' is none of" in err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--macs", "2x"), "give --output, where the result goes, or --dry-run"),
        (("--macs", "2x", "--dry-run", "--output", "x"), "--output has no meaning with --dry-run"),
        (("--macs", "2x", "--dry-run", "--tune", "5", "--calibration", "demo"), "--tune has no meaning"),
        (("--macs", "2x", "--plan", "none.json", "--output", "x"), "none.json cannot be read"),
    ],
)
def test_options_that_do_not_go_together(options, complaint):
    code, _, err = tuckertree("compress", "demo", *options)
    assert code in (1, 2)
    assert complaint in err
