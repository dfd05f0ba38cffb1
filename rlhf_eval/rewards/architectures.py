"""Reward models whose heads transformers does not know, so that none of their remote code is needed.

Each class has the parameter names of the published checkpoint, so `from_pretrained` loads it and names what
is missing. `read` takes the trunk's hidden states and returns the heads with the score as the last.
"""

from itertools import pairwise

import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel

from rlhf_eval.errors import DataError

ARMORM_GATE = (128009, 128006, 78191, 128007, 271)
"""`<|eot_id|><|start_header_id|>assistant<|end_header_id|>` and a blank line in Llama 3's vocabulary: where
the prompt ends."""


class GatedObjectives(LlamaPreTrainedModel):
    """ArmoRM (Wang et al. 2024, arXiv:2406.12845): 19 objectives at the answer's end, weighed by a gate that
    reads the prompt's end. Score = Σ gate · (rewards · transform), equation 3 and §2.2."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        objectives = config.num_objectives
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, objectives, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.eye(objectives))
        self.gating = Gate(config)
        self.pattern = ARMORM_GATE
        self.post_init()

    def read(
        self, hidden_BTD: torch.Tensor, last_B: torch.Tensor, batch: list[tuple[int, ...]]
    ) -> torch.Tensor:
        rows = torch.arange(len(batch), device=hidden_BTD.device)
        gate_B = torch.tensor([self._gate_position(ids) for ids in batch], device=hidden_BTD.device)
        rewards_BH = self.regression_layer(hidden_BTD[rows, last_B])
        weights_BH = self.gating(hidden_BTD[rows, gate_B])
        score_B = (weights_BH * (rewards_BH @ self.reward_transform_matrix)).sum(-1)
        return torch.cat([rewards_BH, score_B[:, None]], dim=1)

    def _gate_position(self, ids: tuple[int, ...]) -> int:
        width = len(self.pattern)
        for start in range(len(ids) - width, -1, -1):
            if ids[start : start + width] == self.pattern:
                return start
        raise DataError(
            "A conversation for ArmoRM does not hold the token pattern that opens the assistant's turn.",
            "Use the model's own chat template, and a max_length that keeps the whole answer.",
        )


class Gate(nn.Module):
    """Hidden state of the prompt's last token to weights of the objectives, shape (batch, objectives)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.temperature = getattr(config, "gating_temperature", 10)
        self.logit_scale = nn.Parameter(torch.ones(1))
        hidden, count = getattr(config, "gating_hidden_dim", 1024), getattr(config, "gating_n_hidden", 3)
        widths = [config.hidden_size, *[hidden] * count, config.num_objectives]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x_BD = torch.relu(layer(x_BD))
        return torch.softmax(self.layers[-1](x_BD) / self.temperature, dim=-1) * self.logit_scale


class NormalAttributes(LlamaPreTrainedModel):
    """URM (Lou et al. 2024, arXiv:2410.00847): each attribute has the parameters of a normal distribution;
    the score is the sum of their means, weighed by a network that reads the same token."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        self.num_labels = int(config.num_labels or 0)
        self.score = nn.Linear(config.hidden_size, self.num_labels, bias=False)
        self.weights = AttributeWeights(config)
        self.post_init()

    def read(
        self, hidden_BTD: torch.Tensor, last_B: torch.Tensor, batch: list[tuple[int, ...]]
    ) -> torch.Tensor:
        last_BD = hidden_BTD[torch.arange(len(batch), device=hidden_BTD.device), last_B]
        means_BH = self.score(last_BD)[:, 0::2]
        score_B = (means_BH * self.weights(last_BD)).sum(-1)
        return torch.cat([means_BH, score_B[:, None]], dim=1)


class AttributeWeights(nn.Module):
    """Three layers with SELU between them."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.fc = nn.Sequential(
            nn.Linear(width, width),
            nn.SELU(),
            nn.Linear(width, width),
            nn.SELU(),
            nn.Linear(width, int(config.num_labels or 0) // 2),
        )

    def forward(self, x_BD: torch.Tensor) -> torch.Tensor:
        return self.fc(x_BD)


class TwoLayerHead(LlamaPreTrainedModel):
    """INF-ORM-Llama3.1-70B: a head of two layers with ReLU at the answer's end."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        width = config.hidden_size
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.post_init()

    def read(
        self, hidden_BTD: torch.Tensor, last_B: torch.Tensor, batch: list[tuple[int, ...]]
    ) -> torch.Tensor:
        return self.score(hidden_BTD[torch.arange(len(batch), device=hidden_BTD.device), last_B])
