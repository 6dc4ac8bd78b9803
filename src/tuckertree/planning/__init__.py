"""Deciding what to do to each layer; nothing here changes a model."""

from tuckertree.planning.inventory import Call, Inventory, Layer, take_inventory
from tuckertree.planning.plan import DENSE, LayerPlan, Plan
from tuckertree.planning.planner import Options, make_plan, survey
from tuckertree.planning.rules import Energy, Error, Ranks, Rule

__all__ = [
    "DENSE",
    "Call",
    "Energy",
    "Error",
    "Inventory",
    "Layer",
    "LayerPlan",
    "Options",
    "Plan",
    "Ranks",
    "Rule",
    "make_plan",
    "survey",
    "take_inventory",
]
