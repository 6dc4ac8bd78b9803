"""The page of what `compress` and what follows it keep: a saved folder, or an ONNX file that says as much."""

from __future__ import annotations

from collections.abc import Iterator

from tuckertree.io.report import ratio, too_few_images, warnings_of
from tuckertree.latency import is_int8
from tuckertree.planning import Latency
from tuckertree.tools.html_report.content import Figure, Lines, Page, Section, listed
from tuckertree.tools.html_report.layers import layer_sections, surveyed
from tuckertree.tools.html_report.reading import Known, Lost, Saved
from tuckertree.tools.html_report.runs import run_sections


def saved_page(saved: Saved) -> Page:
    """What is kept of a network."""
    name = saved.name
    sections = [*layer_sections(saved), *run_sections(saved.known), _repeat(saved)]
    return Page(
        title=f"{name}, compressed",
        verdict=verdict(saved),
        origin=f"{saved.path.name}, of {name}, saved by tuckertree {saved.tuckertree}",
        figures=[*_sizes(saved), *_time(saved.plan.latency), *_accuracy(saved.known)],
        warnings=list(_warnings(saved)),
        missing=list(_missing(saved)),
        sections=sections,
    )


def verdict(saved: Saved) -> str:
    """What came of it in one line, of what was measured alone."""
    plan, parts = saved.plan, list[str]()
    if plan.latency is not None:
        parts.append(f"{1 / plan.latency.measured:.1f}x faster{' in int8' if is_int8(plan) else ''}")
    parts.append(_times(plan.parameters, "smaller"))
    if plan.latency is None:
        parts.append(_times(plan.macs, "fewer MACs"))
    return ", ".join([*parts, _kept(saved.known)])


def _times(pair: tuple[int, int], what: str) -> str:
    return f"{pair[0] / max(pair[1], 1):.1f}x {what}"


def _kept(known: Known) -> str:
    """What became of the accuracy, as far as it was measured on the network as it is now."""
    if known.training is not None:
        after = known.training.history[-1].get("validation_top1") if known.training.history else None
        if after is None:
            return "accuracy after fine-tuning not measured"
        return f"top-1 {after:.1f} on validation images after fine-tuning"
    if known.original and known.compressed and None not in (known.original.top1, known.compressed.top1):
        return f"top-1 {known.original.top1:.1f} -> {known.compressed.top1:.1f}"
    if known.accuracy is not None:
        return _lost(known.accuracy.loss)
    if known.int8 is not None and known.int8.distance is not None:
        return f"outputs {known.int8.distance:.1%} from the original's in int8, accuracy not measured"
    if known.tuning is not None and known.tuning.after is not None:
        return f"outputs {known.tuning.after:.1%} from the original's, accuracy not measured"
    if "held out" in known.distances:
        return f"outputs {known.distances['held out']:.1%} from the original's, accuracy not measured"
    return "accuracy not measured"


def _lost(loss: Lost) -> str:
    """A loss with half of its interval."""
    if loss.lost is None or loss.low is None or loss.high is None:
        return "the outputs cannot be compared with the original's"
    half = (loss.high - loss.low) / 2
    if loss.top1 is not None:
        before, after = (each.top1 for each in loss.top1)
        return f"top-1 {before:.1f} -> {after:.1f} \N{PLUS-MINUS SIGN} {half:.1f}"
    kept = f"{100 * (1 - loss.lost):.1f} \N{PLUS-MINUS SIGN} {100 * half:.1f} %"
    return (
        f"{kept} of the answers are the original's" if loss.kind == "answers" else f"outputs agree to {kept}"
    )


def _sizes(saved: Saved) -> Iterator[Figure]:
    for label, (before, after) in (("Parameters", saved.plan.parameters), ("MACs", saved.plan.macs)):
        yield Figure(label, "count", before, after, f"{before / max(after, 1):.2f}x fewer")
    if saved.errors:
        note = "before fine-tuning" if saved.known.training else "of the norm of all layers' weights"
        yield Figure("Error of the weights", "share", None, saved.relative_error, note=note)
    if (int8 := saved.known.int8) is not None and saved.int8:
        few = f"{len(int8.layers.fp32)} of {int8.layers.layers} layers in fp32"
        yield Figure("Bytes in int8", "count", None, int8.bytes, note=few if int8.layers.fp32 else "")


def _time(found: Latency | None) -> Iterator[Figure]:
    if found is None:
        return
    yield Figure(
        "Latency",
        "milliseconds",
        found.seconds,
        found.seconds * found.measured,
        f"{1 / found.measured:.2f}x faster ({1 / found.high:.2f}x to {1 / found.low:.2f}x)",
        f"{found.runtime}, {found.threads} threads, batch {found.batch}, {found.precision}",
    )


def _accuracy(known: Known) -> Iterator[Figure]:
    stale = "; before fine-tuning" if known.training else ""
    if known.accuracy is not None:
        loss = known.accuracy.loss
        on = f"on {loss.images} images that took no part in the search{stale}"
        if loss.top1 is not None and loss.lost is not None:
            before, after = (each.top1 / 100 for each in loss.top1)
            interval = f" (95 %: {loss.low:.1f} to {loss.high:.1f})" if loss.low is not None else ""
            yield Figure("Top-1", "share", before, after, f"{loss.lost:.1f} points lost{interval}", on)
        elif loss.lost is not None:
            label = "Answers changed" if loss.kind == "answers" else "Distance of the outputs"
            yield Figure(label, "share", None, loss.lost, note=on)
    original, compressed = known.original, known.compressed
    if original and compressed and original.top1 is not None and compressed.top1 is not None:
        change = f"{original.top1 - compressed.top1:.2f} points lost"
        yield Figure("Top-1", "share", original.top1 / 100, compressed.top1 / 100, change)
    last = known.training.history[-1] if known.training and known.training.history else {}
    if (validated := last.get("validation_top1")) is not None:
        yield Figure("Top-1 after fine-tuning", "share", None, validated / 100, note="on validation images")
    if found := known.distances:
        count = f"{found.get('images held out', 0):.0f} images held out"
        when = "after calibration, " if known.tuning else ""
        note = f"{when}relative, on {count}{stale}"
        yield Figure("Distance of the outputs", "share", None, found.get("held out"), note=note)
    if known.int8 is not None and known.int8.distance is not None:
        note = f"relative, on images {'held out' if known.int8.held_out else 'fitted to'}{stale}"
        yield Figure("Distance of the outputs in int8", "share", None, known.int8.distance, note=note)
    if known.tuning is not None:
        note = f"relative, on {known.tuning.held_out} images held out{stale}"
        tuned = known.tuning
        yield Figure("Distance by tuning", "share", tuned.before, tuned.after, note=note)


def _warnings(saved: Saved) -> Iterator[str]:
    """Reasons to doubt the network, of what is known of it as it is now."""
    known = saved.known
    if known.training is None and {layer.name for layer in saved.plan.compressed} <= {*known.errors}:
        yield from warnings_of(saved)
    if known.training is None and {"fitted", "held out", "images fitted"} <= {*known.distances}:
        yield from too_few_images(known.distances)
    if known.training is not None and known.training.diverged:
        yield "training diverged: the weights are those of the last epoch before"
    if known.accuracy is not None and not known.accuracy.held:
        yield "the accuracy that was asked for was not kept on images that took no part in the search"


def _missing(saved: Saved) -> Iterator[str]:
    known, plan = saved.known, saved.plan
    measured = known.accuracy or known.compressed or (known.training and known.training.history)
    if not measured:
        yield "Accuracy: `tuckertree evaluate` measures it, `compress --max-drop` keeps it."
    if plan.latency is None:
        yield "Latency: `tuckertree bench` measures it, `compress --latency` keeps it."
    if is_int8(plan) and not saved.int8:
        yield "The network in int8: `tuckertree export --quantize int8` makes one, and chooses its layers in fp32 anew."
    if not known.errors:
        yield "Errors of the weights: `tuckertree compress` keeps them, this was made by something else."
    if known.survey is None or not (known.survey.layers or known.survey.curve):
        yield "Spectra and trade-off curve: none are kept; `tuckertree compress` keeps those that it chose ranks by."
    elif not surveyed(saved):
        yield "Spectra: no layer has a method whose ranks are those of a spectrum, or errors at its ranks on offer that are kept."
    if known.sensitivity is None:
        yield "Sensitivity: give `--sensitivity FILE` with what `tuckertree inspect --sensitivity --json` printed."
    if not known.environment:
        yield "Versions and machine."
    if not known.commands:
        yield "The command that made it."


def _repeat(saved: Saved) -> Section:
    known = saved.known
    facts = [
        *([f"images: {known.images}"] if known.images else []),
        *listed({name: value for name, value in saved.plan.rule.items() if name != "weighs"}),
        *([f"seed of the tuning: {known.tuning.seed}, {known.tuning.steps} steps"] if known.tuning else []),
        *([f"seed of the training: {known.training.settings.get('seed')}"] if known.training else []),
        *listed(known.environment),
        *(f"seconds of {name}: {value:.1f}" for name, value in known.seconds.items()),
        f"parameters: {ratio(saved.plan.parameters)}",
        f"MACs: {ratio(saved.plan.macs)}",
    ]
    typed = [Lines(known.commands, typed=True)] if known.commands else []
    return Section("repeat", "How to repeat it", "", [*typed, Lines(facts)])
