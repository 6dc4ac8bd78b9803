"""Whether a model's chains will do what its layers do, tried before anything is compressed.

A model is code, and may do with its layers what no inventory sees: ask for their class, write into their weights,
keep them in a list, or reach from a copy of itself back into the original. So it runs beside a copy that has
shells in place of its layers, which are chains to all appearance and answer with the layers' own results. Where
that copy does something else, one with chains would, too.
"""

from tuckertree.network.probing.probe import ProbeWarning, check_result, probe
from tuckertree.network.probing.pruned import check_hidden

__all__ = ["ProbeWarning", "check_hidden", "check_result", "probe"]
