"""Deciding what to do to each layer; nothing here changes a model."""

from tuckertree.planning.accepted import check_model, peculiarity
from tuckertree.planning.budget import Budget, TradeOff, trade_off
from tuckertree.planning.candidates import Candidates, layer_candidates
from tuckertree.planning.groups import Decisions, Group
from tuckertree.planning.inventory import DEPTHWISE, Call, Inventory, Layer, take_inventory
from tuckertree.planning.options import Options
from tuckertree.planning.plan import DENSE, Latency, LayerPlan, Optimality, Plan
from tuckertree.planning.planner import Metric, make_plan, survey, survey_candidates
from tuckertree.planning.rules import Allocation, Energy, ErrorBound, NetworkRule, Ranks, Rule
from tuckertree.planning.survey_record import OfferedRecord, SurveyRecord, record_survey
from tuckertree.planning.timing import Timer

__all__ = [
    "DENSE",
    "DEPTHWISE",
    "Allocation",
    "Budget",
    "Call",
    "Candidates",
    "Decisions",
    "Energy",
    "ErrorBound",
    "Group",
    "Inventory",
    "Latency",
    "Layer",
    "LayerPlan",
    "Metric",
    "NetworkRule",
    "OfferedRecord",
    "Optimality",
    "Options",
    "Plan",
    "Ranks",
    "Rule",
    "SurveyRecord",
    "Timer",
    "TradeOff",
    "check_model",
    "layer_candidates",
    "make_plan",
    "peculiarity",
    "record_survey",
    "survey",
    "survey_candidates",
    "take_inventory",
    "trade_off",
]
