"""What every method must do, as a class of tests for pytest."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from tuckertree._base.errors import UnreachableTargetError, UsageError
from tuckertree.core.decomposition import Truncations
from tuckertree.core.layers import (
    Chain,
    LayerSpec,
    chain_parameters,
    contract_chain,
    densify,
    factorize,
    fusion_variants,
    get_method,
)
from tuckertree.io import load_folder, save_folder
from tuckertree.network.surgery import apply
from tuckertree.planning import (
    Budget,
    Options,
    layer_candidates,
    make_plan,
    survey_candidates,
    take_inventory,
)

_MANY = 2**31


class MethodContract:
    """Tests of a registered method; subclass it in a file of tests and set ``method``.

    Attributes
    ----------
    method
        The name.
    modules, sizes
        Layers that are tried, and the spatial sizes of their inputs by the number of axes. At least one of them
        must be such as the method applies to.
    """

    method: ClassVar[str]
    modules: ClassVar[Sequence[nn.Module]] = (
        nn.Conv2d(6, 8, 3, padding=1),
        nn.Conv2d(7, 5, 3, stride=2, padding=(2, 1), padding_mode="circular", bias=False),
        nn.Conv2d(8, 6, (3, 2), stride=(1, 2), dilation=(2, 1), groups=2),
        nn.Conv2d(6, 9, (1, 3), stride=2, padding="valid"),
        nn.Conv2d(5, 6, 3, padding="same", padding_mode="reflect"),
        nn.Conv2d(9, 7, 1, stride=2),
        nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1, output_padding=1, dilation=2),
        nn.Conv1d(6, 7, 3, groups=1),
        nn.Conv3d(4, 5, (2, 3, 2), padding=(1, 0, 1)),
        nn.Linear(9, 8),
    )
    sizes: ClassVar[dict[int, tuple[int, ...]]] = {0: (), 1: (11,), 2: (9, 10), 3: (5, 6, 5)}

    def test_it_applies_to_some_layer_and_is_refused_for_others(self) -> None:
        """A layer that it does not apply to is refused in one line."""
        how, applies = get_method(self.method), []
        for module in self._copies():
            spec = LayerSpec.of(module)
            applies.append(how.applies(spec))
            if not applies[-1]:
                try:
                    factorize(
                        module, self.method, (1,) * how.rank_count(spec) if spec.nontrivial_modes else (1,)
                    )
                except UsageError:
                    continue
                raise AssertionError(f"{module} is not refused")
        assert any(applies)

    def test_the_stages_compute_the_product_of_the_factors(self) -> None:
        """Stride, padding, dilation, groups and bias are those of the dense layer, to rounding."""
        for module, chain, x in self._chains():
            dense = densify(chain)
            assert dense(x).shape == module(x).shape
            torch.testing.assert_close(chain(x), dense(x), rtol=1e-9, atol=1e-9)

    def test_full_ranks_are_exact(self) -> None:
        """At the ranks that are the most there can be nothing is lost."""
        for module, chain, x in self._chains(ranks=_MANY):
            torch.testing.assert_close(chain(x), module(x), rtol=1e-6, atol=1e-6)

    def test_each_choice_costs_what_its_layers_have_and_loses_no_more_than_it_says(self) -> None:
        """Parameters, MACs and errors of candidates are those of chains that are made."""
        offered = 0
        for module, x in self._layers():
            layer = take_inventory(nn.Sequential(module), x).layers[0]
            kernel = layer.spec.kernel(cast("Tensor", module.weight).detach())
            found = layer_candidates(layer, kernel, methods=(self.method,))
            offered += len(found) - 1
            for i in range(0, len(found), max(1, len(found) // 4)):
                if not found.ranks[i]:
                    continue  # the dense layer
                chain = factorize(module, self.method, found.ranks[i])
                assert chain.ranks == found.ranks[i]
                weights = sum(cast("Tensor", stage.weight).numel() for stage in chain)
                assert weights == chain_parameters(chain.stages) == found.parameters[i]
                assert layer.chain_macs(chain.stages) == found.macs[i]
                assert chain.factors().relative_error(kernel) ** 2 <= float(found.error[i]) + 1e-9
        assert offered

    def test_the_error_of_a_choice_is_that_of_its_kernel_in_any_scale(self) -> None:
        """Errors are finite, not negative, and squared lengths of the kernel that was given."""
        for module, _ in self._layers():
            spec, how = LayerSpec.of(module), get_method(self.method)
            kernel = spec.kernel(cast("Tensor", module.weight).detach())
            for scale in (1e-6, 1.0, 1e6):
                found = how.checked_choices(spec, Truncations(scale * kernel), 1)
                whole = float((scale * kernel).double().square().sum())
                ranks, squared = found.ranks[-1].tolist(), float(found.squared[-1])
                factors = how.decompose(scale * kernel, ranks)
                lost = float((scale * kernel - factors.kernel()).square().sum())
                assert lost <= squared + 1e-9 * whole

    def test_factors_go_in_and_out_of_a_chain(self) -> None:
        """What is read off the stages is what was put in, and what was put in multiplies to the kernel."""
        for _, chain, _ in self._chains():
            factors = chain.factors()
            assert factors.kernel().shape == (chain.dense.groups, *chain.dense.nontrivial_shape)
            again = copy.deepcopy(chain)
            again.set_factors(factors)
            for one, other in zip(again.parameters(), chain.parameters(), strict=True):
                assert torch.equal(one, other)

    def test_balanced_factors_multiply_to_the_same_kernel(self) -> None:
        """Balancing changes shapes and product to rounding only."""
        for _, chain, _ in self._chains():
            factors = chain.factors()
            balanced = get_method(self.method).balance(factors)
            assert [core.shape for core in balanced] == [core.shape for core in factors]
            torch.testing.assert_close(balanced.kernel(), factors.kernel(), rtol=1e-9, atol=1e-9)

    def test_every_form_computes_the_same(self) -> None:
        """Neighbouring stages merged: the same function in fewer layers."""
        for _, chain, x in self._chains():
            for form in fusion_variants(chain.stages, chain.cuts):
                torch.testing.assert_close(contract_chain(chain, form)(x), chain(x), rtol=1e-9, atol=1e-9)

    def test_a_kernel_has_the_same_factors_every_time(self) -> None:
        """No state is kept, and no chance is left to a generator of the caller's."""
        for module, first, _ in self._chains():
            torch.manual_seed(int(torch.randint(2**16, ())))
            second = factorize(module, self.method, first.ranks)
            assert all(
                torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
            )

    def test_single_precision_is_as_exact_as_its_rounding(self) -> None:
        """A layer in float32 has the chain of the same layer in float64, rounded."""
        for module, chain, x in self._chains(ranks=_MANY):
            single = factorize(copy.deepcopy(module).float(), self.method, chain.ranks)
            assert all(p.dtype == torch.float32 for p in single.parameters())
            torch.testing.assert_close(single(x.float()).double(), module(x), rtol=1e-3, atol=1e-3)

    def test_a_kernel_of_zeros_and_one_of_low_rank_have_finite_factors(self) -> None:
        """Kernels that have less than their ranks: dead filters, or nothing at all."""
        for module, chain, x in self._chains():
            for rows in (slice(None), slice(1, None)):
                with torch.no_grad():
                    module.weight[rows] = 0  # type: ignore[operator]
                emptied = factorize(module, self.method, chain.ranks)
                assert emptied(x).isfinite().all()
                assert all(p.isfinite().all() for p in emptied.parameters())

    def test_it_is_saved_and_loaded(self) -> None:
        """A folder needs no decomposition to be read, and computes the same to the bit."""
        saved = 0
        for module, x in self._layers():
            network = nn.Sequential(module).eval()
            inventory, options = take_inventory(network, x), Options(methods=(self.method,))
            candidates = survey_candidates(network, inventory, options)
            try:
                plan = make_plan(inventory, candidates, Budget(params=0.9), options)
            except UnreachableTargetError:
                continue
            compressed = apply(network, plan)
            with tempfile.TemporaryDirectory() as folder:
                path = save_folder(Path(folder) / "saved", compressed, plan, architecture=None, report={})
                loaded, _ = load_folder(path, _no_architecture, into=network)
            assert torch.equal(loaded(x), compressed(x))
            saved += 1
        assert saved

    def _copies(self) -> Iterator[nn.Module]:
        generator = torch.Generator().manual_seed(0)
        for module in self.modules:
            module = copy.deepcopy(module).double().eval()
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            yield module

    def _layers(self) -> Iterator[tuple[nn.Module, Tensor]]:
        for module in self._copies():
            spec = LayerSpec.of(module)
            if get_method(self.method).applies(spec):
                shape = (2, spec.in_channels, *self.sizes[spec.order])
                yield (
                    module,
                    torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
                )

    def _chains(self, ranks: int = 3) -> Iterator[tuple[nn.Module, Chain, Tensor]]:
        how = get_method(self.method)
        for module, x in self._layers():
            count = how.rank_count(LayerSpec.of(module))
            yield module, factorize(module, self.method, (ranks,) * count), x


def _no_architecture(name: str) -> nn.Module:
    raise AssertionError(f"the folder names an architecture {name}")
