"""`tuckertree evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuckertree.tools.cli.app import command, print_json, stdout
from tuckertree.tools.cli.options import (
    AsJson,
    BuiltBy,
    Channels,
    DataImages,
    Device,
    InputSize,
    Mean,
    Model,
    NoFused,
    Scale,
    Std,
    Weights,
    chosen_preprocessing,
    fused_lines,
    is_onnx,
    parse_size,
    prepared,
    refuse_torch_options,
)
from tuckertree.tools.cli.untrained import warn_if_untrained

if TYPE_CHECKING:
    from torch import nn

    from tuckertree.tools.data import ImageSet
    from tuckertree.tools.onnx_images import OnnxImages


@command
def evaluate(
    model: Model,
    data: Annotated[str, typer.Option(help="Images: folder, .parquet file or demo.")],
    split: Annotated[
        str | None, typer.Option(help="Part of the data; by default test or validation.")
    ] = None,
    data_images: DataImages = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 128,
    weights: Weights = None,
    architecture: BuiltBy = None,
    input_size: InputSize = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    channels: Channels = None,
    device: Device = "cpu",
    no_fused: NoFused = False,
    as_json: AsJson = False,
) -> None:
    """Measure the accuracy of a model, compressed or not, or of an ONNX file, on labelled images."""
    from tuckertree._base.progress import progress_bar
    from tuckertree.io.report import short
    from tuckertree.measure import count_macs, count_parameters
    from tuckertree.measure import evaluate as measure
    from tuckertree.network.onnx import SessionModule
    from tuckertree.tools.data import Preprocessing, batches, open_images
    from tuckertree.tools.opening import open_model

    size = parse_size(input_size)
    images_as: dict[str, Any] = {"mean": mean, "std": std, "scale": scale, "channels": channels}
    network: nn.Module
    images: ImageSet | OnnxImages
    if is_onnx(model):
        from tuckertree.compression import OnnxNetwork
        from tuckertree.tools.onnx_images import open_onnx_images

        fused, int8 = fused_lines({}, no_fused=no_fused), None
        refuse_torch_options(weights, architecture, device)
        given = Preprocessing((1, 1), **chosen_preprocessing(**images_as))
        images = open_onnx_images(model, data, given, input_size=size, split=split, limit=data_images)
        network = SessionModule(model)
        parts = images.batches(network.batch or batch_size)
        inventory = OnnxNetwork(model, input_size=size).inventory()
        parameters, macs = inventory.parameters, inventory.macs
    else:
        opened = open_model(
            model,
            weights=weights,
            architecture=architecture,
            input_size=size,
            device=device,
            fused=not no_fused,
        )
        warn_if_untrained(model, weights)
        fused = fused_lines({model: opened.plan}, no_fused=no_fused, int8={model: opened.int8})
        opened = prepared(opened, **images_as)
        network = opened.model
        images = open_images(data, opened.preprocessing, split=split, limit=data_images)
        parts = batches(images, batch_size)
        parameters, macs = count_parameters(network), count_macs(network, opened.example)
        int8 = opened.int8
        if int8 is not None:
            network = SessionModule(int8)
    with progress_bar() as tick:
        accuracy = measure(network, parts, device=device, images=len(images), tick=tick)
    if as_json:
        found = {**accuracy.to_json(), "parameters": parameters, "macs": macs}
        how = {"fused": bool(fused), "int8": bool(int8)}
        print_json({"model": model, "data": images.source, **how, **found})
        return
    stdout.print(f"model       {model}", soft_wrap=True)
    stdout.print(f"data        {images.source}", soft_wrap=True)
    for line in fused:
        stdout.print(line, soft_wrap=True, highlight=False)
    stdout.print(f"images      {accuracy.images}")
    stdout.print(f"top-1       {accuracy.text('top1')}")
    stdout.print(f"top-5       {accuracy.text('top5')}")
    stdout.print(f"parameters  {short(parameters)}")
    stdout.print(f"MACs        {short(macs)}")
