"""`tuckertree inspect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from tuckertree._base.errors import UsageError, printable
from tuckertree.tools.cli.app import command, print_json, print_table, stdout
from tuckertree.tools.cli.options import (
    AsJson,
    BuiltBy,
    Calibration,
    Channels,
    Device,
    InputSize,
    InputValues,
    Mean,
    Model,
    Scale,
    Std,
    Weights,
    images_of,
    is_onnx,
    open_network,
    refuse_options,
)
from tuckertree.tools.cli.untrained import warn_if_untrained

if TYPE_CHECKING:
    from tuckertree._base.names import TrustedName
    from tuckertree.compression import Sensitivity
    from tuckertree.core.decomposition import Spectra
    from tuckertree.io.report.drawing import Offered
    from tuckertree.planning import Inventory, Plan, TradeOff


@command
def inspect(
    model: Model,
    weights: Weights = None,
    architecture: BuiltBy = None,
    input_size: InputSize = None,
    input_values: InputValues = None,
    device: Device = "cpu",
    curve: Annotated[bool, typer.Option("--curve", help="Show the predicted loss at every budget.")] = False,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity",
            help="Show what each layer alone costs at 2x fewer MACs, by --calibration.",
        ),
    ] = False,
    spectra: Annotated[
        bool,
        typer.Option(
            "--spectra",
            help="Draw the singular values of each layer, with the ranks of some energies; of what compress made also the "
            "errors at the ranks on offer of methods without spectra.",
        ),
    ] = False,
    by: Annotated[
        str | None, typer.Option(help="Budget of the curve: params, macs or both. [params]")
    ] = None,
    calibration: Calibration = None,
    calibration_images: Annotated[
        int | None,
        typer.Option(help="Look at this many calibration images; 256, with --sensitivity 128.", min=1),
    ] = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    channels: Channels = None,
    as_json: AsJson = False,
) -> None:
    """List the layers of a model, what they cost, and why some cannot be compressed.

    Or show its trade-off curve, its singular values, or what each layer alone would lose.
    """
    from tuckertree.compression import sensitivity as each_layer
    from tuckertree.compression.objectives import trade_off_curve
    from tuckertree.planning import Options, survey

    images_as: dict[str, Any] = {"mean": mean, "std": std, "scale": scale, "channels": channels}
    if curve + sensitivity + spectra > 1:
        raise UsageError("--curve, --sensitivity and --spectra are tables of their own: give one of them")
    if not curve:
        refuse_options("belongs to --curve", by=by)
    if not curve and not sensitivity:
        refuse_options("belongs to --curve or --sensitivity", calibration=calibration)
    if sensitivity and calibration is None:
        raise UsageError("--sensitivity looks at what a network makes of images: give --calibration")
    if calibration is None:
        refuse_options("belongs to --calibration", calibration_images=calibration_images, **images_as)
    network, opened = open_network(
        model,
        weights=weights,
        architecture=architecture,
        device=device,
        input_size=input_size,
        input_values=input_values,
    )
    if curve or sensitivity or spectra:
        warn_if_untrained(model, weights)
    count = calibration_images or (128 if sensitivity else 256)
    images = images_of(calibration, model, opened, count, input_size, **images_as)
    where = ""
    if opened:
        inputs = opened.example_inputs
        named = inputs if isinstance(inputs, dict) else {"": inputs}
        shape = ", ".join(f"{name} {'x'.join(map(str, x.shape))}".strip() for name, x in named.items())
        where = f" at input {shape}"
    if opened and opened.plan and not as_json:
        stdout.print(
            f"{model} is compressed already: shown are its layers multiplied out, as compress takes them"
            f"{'' if curve or sensitivity or spectra else ', with the method and ranks that they are saved in'}",
            soft_wrap=True,
            highlight=False,
        )
    if curve:
        _show_curve(trade_off_curve(network, by=by or "params", calibration=images), as_json=as_json)
        return
    if sensitivity:
        assert images is not None
        _show_sensitivity(each_layer(network, calibration=images), images.source, as_json=as_json)
        return
    with network.opened(None):
        inventory = network.probed(network.inventory(), Options())
        if spectra:
            found = survey(network.module, inventory, Options())
            _show_spectra(found, _offered(model), as_json=as_json)
            return
    _show_inventory(inventory, where, opened.plan if opened else None, as_json=as_json)


def _show_curve(points: Sequence[TradeOff], *, as_json: bool) -> None:
    from tuckertree.io.report import curve_table

    if as_json:
        print_json([asdict(point) for point in points])
    else:
        print_table(curve_table(points))


def _offered(model: TrustedName) -> Offered:
    """What is kept of the layers of a saved folder or a compressed ONNX file whose methods have no spectra."""
    from tuckertree.io import local_folder
    from tuckertree.network.onnx.files import read_onnx
    from tuckertree.tools.html_report.reading import open_folder, open_record
    from tuckertree.tools.opening import names_a_folder

    if is_onnx(model):
        saved = open_record(Path(model), read_onnx(model).proto)
    else:
        saved = open_folder(local_folder(model)) if names_a_folder(model) else None
    if saved is None or saved.known.survey is None:
        return {}
    known = saved.known.survey.known(saved.plan).values()
    return {layer.name: (layer, record.offered) for layer, record in known if record.offered is not None}


def _show_spectra(found: Mapping[str, Spectra], offered: Offered, *, as_json: bool) -> None:
    from tuckertree.io.report import spectra_table

    if as_json:
        rows: dict[str, dict[str, object]] = {
            name: {str(cut): bond.squared.clamp(min=0).sqrt().tolist() for cut, bond in spectra.bonds.items()}
            for name, spectra in found.items()
        }
        for name, (layer, tried) in offered.items():
            rows.setdefault(name, {})[layer.method] = {**asdict(tried), "chosen": layer.ranks[0]}
        print_json(rows)
        return
    print_table(spectra_table(found, offered))
    stdout.print(
        "singular values against the largest; right of them the ranks that keep such a share of energy"
    )
    if offered:
        methods = " and ".join(sorted({layer.method for layer, _ in offered.values()}))
        stdout.print(
            Text(f"{methods}: the chosen rank, those on offer, and the errors at them"), soft_wrap=True
        )


def _show_sensitivity(found: Sensitivity, source: str, *, as_json: bool) -> None:
    from tuckertree.io.report import sensitivity_table

    if as_json:
        print_json(found.to_json())
        return
    print_table(sensitivity_table(found.rows()))
    stdout.print(
        f"each layer alone at {found.factor:g}x fewer MACs, not fitted; {found.images} images of {source}",
        soft_wrap=True,
    )


def _show_inventory(inventory: Inventory, where: str, plan: Plan | None, *, as_json: bool) -> None:
    from tuckertree.io.report import inventory_table, short

    if as_json:
        print_json({**asdict(inventory), **({} if plan is None else {"plan": plan.to_json()})})
        return
    print_table(inventory_table(inventory, plan))
    for note in inventory.notes:
        stdout.print(Text(printable(f"note: {note}")), soft_wrap=True)
    stdout.print(f"{short(inventory.parameters)} parameters, {short(inventory.macs)} MACs{where}")
    if plan is not None:
        stdout.print(
            f"as saved: {short(plan.parameters[1])} parameters, {short(plan.macs[1])} MACs; `tuckertree report` shows all of it",
            soft_wrap=True,
        )
