from itertools import product

import pytest
import torch
from hypothesis import given

from tests.strategies import examples, kernels, method_cuts
from tuckertree._base.errors import UsageError
from tuckertree.core.decomposition import matricize
from tuckertree.core.decomposition.matricization import kernel_from_row, modes_in_row


def test_order_2_matricizations_have_the_indices_of_the_paper():
    T, C, D1, D2 = 3, 4, 2, 5
    kernel = torch.arange(T * C * D1 * D2).reshape(1, T, C, D1, D2)
    leaf_c, inner, leaf_t = (matricize(kernel, bond)[0] for bond in range(3))
    for t, c, d1, d2 in product(range(T), range(C), range(D1), range(D2)):
        weight = kernel[0, t, c, d1, d2]
        assert leaf_c[c, (d1 * D2 + d2) * T + t] == weight
        assert inner[c * D1 + d1, d2 * T + t] == weight
        assert leaf_t[(c * D1 + d1) * D2 + d2, t] == weight


@examples(20)
@given(kernels())
def test_matricization_treats_each_group_as_a_kernel_of_its_own(kernel):
    for bond in range(kernel.ndim - 2):
        alone = [matricize(group.unsqueeze(0), bond) for group in kernel]
        assert torch.equal(matricize(kernel, bond), torch.cat(alone))


@examples(20)
@given(kernels())
def test_row_of_modes_is_inverted(kernel):
    assert torch.equal(kernel_from_row(modes_in_row(kernel)), kernel)


@pytest.mark.parametrize(
    ("method", "cuts_by_order"),
    [
        ("ht2", {0: (0,), 1: (0, 1), 2: (0, 1, 2), 3: (0, 1, 2, 3)}),
        ("tucker2", {0: (0,), 1: (0, 1), 2: (0, 2), 3: (0, 3)}),
        ("spatial", {2: (1,), 3: (2,)}),
        ("svd", {0: (0,), 1: (1,), 2: (2,), 3: (3,)}),
    ],
)
def test_methods_cut_the_bonds_they_are_known_for(method, cuts_by_order):
    assert {order: method_cuts(method, order) for order in cuts_by_order} == cuts_by_order


@pytest.mark.parametrize(
    ("method", "order", "message"),
    [
        ("tucker", 2, "unknown method 'tucker'; known: ht2, tucker2, spatial, svd, depthwise, cp"),
        ("spatial", 1, "needs two spatial modes, this kernel has 1"),
    ],
)
def test_a_method_that_does_not_exist_for_a_kernel_is_refused(method, order, message):
    with pytest.raises(UsageError, match=message):
        method_cuts(method, order)
