"""Published experiments as YAML files: read and checked, carried out, and compared in a table."""

from tuckertree.tools.recipes.page import reproduction_page, result_lines
from tuckertree.tools.recipes.reading import LoadedRecipe, load_recipe, parse_overrides, training_overrides
from tuckertree.tools.recipes.reproduction import Reproduction, find_weights, reproduce
from tuckertree.tools.recipes.schema import Compression, Data, Paper, Reach, Recipe, Rival, Source, Stage

__all__ = [
    "Compression",
    "Data",
    "LoadedRecipe",
    "Paper",
    "Reach",
    "Recipe",
    "Reproduction",
    "Rival",
    "Source",
    "Stage",
    "find_weights",
    "load_recipe",
    "parse_overrides",
    "reproduce",
    "reproduction_page",
    "result_lines",
    "training_overrides",
]
