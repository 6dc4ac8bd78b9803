"""Recipes from YAML files, and what the command line changes in them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuckertree._base.errors import TuckertreeError, UsageError, first_line
from tuckertree._base.extras import require_extra
from tuckertree._base.reading import check_regular, number_in, read_as
from tuckertree.tools.models import names_a_scheme, resolve
from tuckertree.tools.recipes.schema import Recipe, Schedule

_LARGEST = 2**20


@dataclass(frozen=True)
class LoadedSchedule:
    """A schedule, what stands in its file, and the text itself."""

    schedule: Schedule
    data: Any
    text: str

    @property
    def sha256(self) -> str:
        """Of the text."""
        return _sha256(self.text)


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and the text it was read from.

    Attributes
    ----------
    recipe
        With the overrides.
    text, sha256
        The file as it is, without them.
    overrides
        What was changed, value by key.
    path
        The file.
    schedule
        The file of the schedule that it is carried out by, if it is not its own.
    """

    recipe: Recipe
    text: str
    sha256: str
    overrides: Mapping[str, object]
    path: Path
    schedule: LoadedSchedule | None = None


def load_recipe(
    path: str | Path, overrides: Mapping[str, object] | None = None, *, schedule: str | None = None
) -> LoadedRecipe:
    """Read and check a recipe.

    Parameters
    ----------
    path
        A YAML file. It is read as data alone: no tag in it can make anything but text, numbers, lists and
        mappings.
    overrides
        Values by key, such as ``{"training.lr": 0.05, "stages.0.training.epochs": 10}``, that take the place
        of the file's.
    schedule
        Name of a schedule, the file ``schedule-NAME.yaml`` in the folder above the recipe's: the network is reduced as far
        as the recipe says, by a budget of parameters and MACs fitted to images, and trained as the schedule says.

    Raises
    ------
    UsageError
        If a file is missing, not YAML, or not a recipe or schedule: one line that names the file and the key.
    TuckertreeError
        If PyYAML is not installed.
    """
    path = Path(path)
    text = _read(path)
    data = _parse(path, text)
    overrides = dict(overrides or {})
    try:
        recipe = read_as(Recipe, data)  # a fault of the file is not blamed on an override
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    other = None if schedule is None else load_schedule(path, schedule)
    if other is not None:
        data = _scheduled(data, recipe, path, other)
    try:
        recipe = read_as(Recipe, _changed(data, overrides))
    except UsageError as error:
        by = [*([f"the schedule {schedule}"] if schedule else []), *overrides]
        raise UsageError(f"{path}, changed by {', '.join(by)}: {error}") from error
    _check_network(path, recipe.network)
    return LoadedRecipe(recipe, text, _sha256(text), overrides, path, other)


def load_schedule(recipe: str | Path, name: str) -> LoadedSchedule:
    """Read a schedule that recipes of a folder may be carried out by.

    Parameters
    ----------
    recipe
        The file of a recipe: schedules lie in the folder above its own.
    name
        The file is ``schedule-NAME.yaml``.

    Raises
    ------
    UsageError
        If there is none of this name, or it is no schedule.
    """
    folder = Path(recipe).absolute().parent.parent
    known = sorted(each.stem.removeprefix("schedule-") for each in folder.glob("schedule-*.yaml"))
    if name not in known:
        there = f"known: {', '.join(known)}" if known else f"there is none in {folder}"
        raise UsageError(f"unknown schedule {name!r}; {there}")
    file = folder / f"schedule-{name}.yaml"
    text = _read(file)
    try:
        return LoadedSchedule(read_as(Schedule, data := _parse(file, text)), data, text)
    except UsageError as error:
        raise UsageError(str(error) if str(file) in str(error) else f"{file}: {error}") from error


def _scheduled(data: Any, recipe: Recipe, path: Path, given: LoadedSchedule) -> dict[str, object]:
    """A recipe's data with the compression and the training of a schedule."""
    schedule = given.schedule
    compression = {
        "budget": _reduction(recipe, path),
        "calibration": schedule.calibration,
        "tune": schedule.tune,
    }
    kept = {key: value for key, value in data.items() if key != "stages"}
    return {**kept, "compression": compression, "training": given.data["training"]}


def _reduction(recipe: Recipe, path: Path) -> dict[str, object]:
    """How far the network of a recipe's row is reduced: as was published, or else as the recipe itself does it."""
    published = {kind: getattr(recipe.paper, kind) for kind in ("params", "macs")}
    if any(published.values()):
        return {kind: f"{factor:g}x" for kind, factor in published.items() if factor}
    own = recipe.steps[-1].compression
    target = own.energy_for or own.budget
    if target is None:
        raise UsageError(f"{path} names no reduction of the network that a schedule could reach")
    shares = {"params": target.params, "macs": target.macs}
    return {kind: share for kind, share in shares.items() if share is not None}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def parse_overrides(settings: Sequence[str]) -> dict[str, object]:
    """Read texts such as ``training.lr=0.05``; the value is YAML and has to have the type of its field.

    Raises
    ------
    UsageError
        If a text has no ``=``, names a key twice, or its value is not YAML.
    """
    yaml = require_extra("yaml", extra="training")
    found: dict[str, object] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not all(key.split(".")):
            raise UsageError(f"a change must be like training.lr=0.05, not {setting!r}")
        if key in found:
            raise UsageError(f"{key} is changed twice; give it once")
        try:
            found[key] = number_in(yaml.safe_load(value))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UsageError(f"the value of {setting!r} is not YAML: {_reason(error)}") from error
    return found


def training_overrides(
    path: str | Path, values: Mapping[str, object], *, schedule: str | None = None
) -> dict[str, object]:
    """Overrides that set the same values in the training of every stage that trains."""
    recipe = load_recipe(path, schedule=schedule).recipe
    prefixes = [f"stages.{number}.training" for number, stage in enumerate(recipe.stages) if stage.training]
    if recipe.training is not None:
        prefixes.append("training")
    if values and not prefixes:
        raise UsageError(f"{path} trains nothing; leave out {', '.join(values)}")
    return {f"{prefix}.{name}": value for prefix in prefixes for name, value in values.items()}


def _read(path: Path) -> str:
    try:
        check_regular(path)
    except TuckertreeError as error:
        raise UsageError(str(error)) from error
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}; give a recipe") from error
    if len(data) > _LARGEST:
        raise UsageError(f"{path} is larger than any recipe; give a recipe")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a recipe: it is not text in UTF-8") from error


def _parse(path: Path, text: str) -> object:
    yaml = require_extra("yaml", extra="training")
    try:
        _refuse_doubles(yaml.compose(text, Loader=yaml.SafeLoader), path)
        return yaml.safe_load(text)
    except UsageError:
        raise
    # ValueError: a date that does not exist, or a number of too many digits.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a recipe: {_reason(error)}") from error


def _refuse_doubles(root: Any, path: Path) -> None:
    """Refuse a key that stands twice in one mapping, of which YAML's reader would keep the last."""
    left, seen = [root], set()
    while left:
        node = left.pop()
        if id(node) in seen or not isinstance(getattr(node, "value", None), list):
            continue
        seen.add(id(node))  # aliases lead to the same node again
        pairs = [entry for entry in node.value if isinstance(entry, tuple)]
        keys: set[str] = set()
        for key, _ in pairs:
            if isinstance(key.value, str) and key.value in keys:
                raise UsageError(
                    f"{path}: the key {key.value!r} is given twice, in line {key.start_mark.line + 1}"
                )
            keys |= {key.value} if isinstance(key.value, str) else set()
        left += [value for _, value in pairs] if pairs else node.value


def _reason(error: Exception) -> str:
    """What a YAML parser complains of, and where, in one line."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark is not None:
        return f"{problem} in line {mark.line + 1}"
    return first_line(error)


def _changed(data: object, overrides: Mapping[str, object]) -> object:
    data = copy.deepcopy(data)
    for key, value in overrides.items():
        *parents, last = key.split(".")
        place = data
        for number, name in enumerate(parents):
            place = _step(place, name, ".".join(parents[: number + 1]))
        if isinstance(place, list):
            _step(place, last, key)
            place[int(last)] = value
        elif isinstance(place, dict):
            place[last] = value
        else:
            raise UsageError(f"the recipe has no key {key!r}")
    return data


def _step(place: object, name: str, key: str) -> object:
    if isinstance(place, list) and name.isdecimal() and int(name) < len(place):
        return place[int(name)]
    if isinstance(place, dict) and name in place:
        return place[name]
    raise UsageError(f"the recipe has no key {key!r}")


def _check_network(path: Path, network: str) -> None:
    if not names_a_scheme(network):
        # A file can name no module to import; that is for the user to type.
        raise UsageError(
            f"{path}: network: {network!r} must begin with cifar10:, caffe:, torchvision: or timm:, or be demo"
        )
    try:
        resolve(network)
    except UsageError as error:
        raise UsageError(f"{path}: network: {error}") from error
