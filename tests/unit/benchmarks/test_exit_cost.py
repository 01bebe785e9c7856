"""The cost of heads behind layers."""

from __future__ import annotations

import pytest

from benchmarks.exit_cost import SIZES, main
from justenough.backends.layers.cost import Cost
from tests.unit.backends.layers.small import small


def test_a_cost_counts_the_matrices_of_the_network() -> None:
    network = small()
    layer = network.model.layers[0]
    cost = Cost.of(network.config.to_dict())
    assert cost.layer == sum(weight.numel() for weight in layer.parameters() if weight.dim() == 2)
    assert cost.head == network.lm_head.weight.numel()
    keys = layer.self_attn.k_proj.weight.numel() + layer.self_attn.v_proj.weight.numel()
    assert (cost.layers, cost.handed_on) == (5, keys)


def test_work_adds_layers_heads_and_the_keys_of_skipped_layers() -> None:
    cost = Cost(layers=4, layer=10, head=20, handed_on=1)
    assert cost.halfway(2) == pytest.approx((2 * 10 + 2 * 20 + 2 * 1) / (4 * 10 + 20) - 1)
    assert cost.saved(3, 12, 3, ramps=False) == 0
    assert cost.saved(3, 12, 3, ramps=True) == pytest.approx(1 - (120 + 240) / 180)


def test_the_table_has_the_embedded_model_and_the_known_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["embedded", *SIZES]
    assert "| 0.17 | -37%" in rows[0]
