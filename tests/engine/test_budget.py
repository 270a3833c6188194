"""Budgets follow the machine and the model."""

import pytest

from lydite.engine import budget
from tests.tiny import CONFIGS

SMALL = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}


def test_keys_and_values_of_a_token() -> None:
    """Two of them, 30 layers, 3 heads of 64 numbers of 4 bytes."""
    assert budget.bytes_per_position(SMALL, 4) == 2 * 30 * 3 * 64 * 4


def test_less_memory_means_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for free in (1 << 20, 1 << 28, 1 << 36):
        monkeypatch.setattr(budget, "available_bytes", lambda device, free=free: free)
        sizes.append((budget.batch_rows(SMALL, 4, "cpu"), budget.generation_positions(SMALL, 4, "cpu")))
    assert sizes[0] == (64, 64)
    assert sizes[0] < sizes[1] < sizes[2] == (1024, 16_384)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_architecture_has_a_budget(architecture: str) -> None:
    config = CONFIGS[architecture](320, 128).get_text_config().to_dict()
    assert budget.batch_rows(config, 4, "cpu") > 0
    assert budget.available_bytes() > 0


def test_processes_of_one_machine_share_its_memory(monkeypatch):
    alone = budget.available_bytes()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert budget.available_bytes() < alone / 2
