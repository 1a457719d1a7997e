"""The layers whose Rust twins are judged here, written in PyTorch as plainly as possible.

Shapes, names and orders of concatenation are those of the reference graph: row vectors, `y = x W + b`, weights
stored input-major, the experts and towers of one layer stacked along the first axis. Every width is an argument,
so that the fixtures stay small. Histories are ragged: behaviour `j` belongs to example `owner[j]`.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

CALIBRATOR = 0.6


class Layer(nn.Module):
    """A module whose parameters are drawn from one generator, in order, and rounded to three decimals.

    Biases and gates are drawn too: with zeros a forgotten bias would go unnoticed. They are
    mostly positive, so that few ReLUs are shut.
    """

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def weight(self, *shape):
        return self.draw(shape, 1.2 / math.sqrt(shape[-2]))

    def bias(self, *shape):
        return self.draw(shape, 0.2, 0.3)

    def draw(self, shape, scale, mean=0.0):
        return nn.Parameter(torch.round(mean + torch.randn(*shape, generator=self.generator) * scale, decimals=3))


class Din(Layer):
    """sum_j w(target, e_j) e_j with w a network of sigmoids over [t; e; t - e; t * e]. No softmax, no padding."""

    def __init__(self, item, hidden, generator):
        super().__init__(generator)
        first, second = hidden
        self.w1, self.b1 = self.weight(4 * item, first), self.bias(first)
        self.w2, self.b2 = self.weight(first, second), self.bias(second)
        self.w3, self.b3 = self.weight(second, 1), self.bias(1)

    def forward(self, target, behaviours, owner):
        mine = target[owner]
        pair = torch.cat([mine, behaviours, mine - behaviours, mine * behaviours], dim=1)
        hidden = torch.sigmoid(pair @ self.w1 + self.b1)
        hidden = torch.sigmoid(hidden @ self.w2 + self.b2)
        score = hidden @ self.w3 + self.b3
        return torch.zeros_like(target).index_add(0, owner, score * behaviours)


class Sim(Layer):
    """Multi-head target attention over behaviours [item; age]; a head's output is the weighted behaviour itself.

    The softmax runs over the behaviours of one example, without a scale; an empty history gives zeros.
    """

    def __init__(self, item, age, heads, width, generator):
        super().__init__(generator)
        self.heads, self.width = heads, width
        self.key = self.weight(item + age, heads * width)
        self.query = self.weight(item, heads * width)

    def forward(self, target, behaviours, owner):
        pooled = []
        for i, wanted in enumerate(target):
            mine = behaviours[owner == i]
            key = (mine @ self.key).view(-1, self.heads, self.width)
            query = (wanted @ self.query).view(self.heads, self.width)
            attention = (key * query).sum(2).softmax(0)  # [behaviours, heads]
            pooled.append((attention.unsqueeze(2) * mine.unsqueeze(1)).sum(0).flatten())  # head-major
        return torch.stack(pooled)


class Experts(Layer):
    """Two ReLU layers for each of `count` experts; the first is one product over all of them."""

    def __init__(self, inputs, count, widths, generator):
        super().__init__(generator)
        self.count, self.widths = count, widths
        first, second = widths
        self.w1, self.b1 = self.weight(inputs, count * first), self.bias(count * first)
        self.w2, self.b2 = self.weight(count, first, second), self.bias(count, 1, second)

    def experts(self, x):
        hidden = torch.relu(x @ self.w1 + self.b1).view(len(x), self.count, -1).transpose(0, 1)
        return torch.relu(hidden @ self.w2 + self.b2)  # [experts, B, second]


class Mmoe(Experts):
    """Every task mixes all experts by its own softmax gate, linear in the input."""

    def __init__(self, inputs, tasks, count, widths, generator):
        super().__init__(inputs, count, widths, generator)
        self.tasks = tasks
        self.gate, self.gate_bias = self.weight(inputs, tasks * count), self.bias(tasks * count)

    def forward(self, x):
        gates = (x @ self.gate + self.gate_bias).view(len(x), self.tasks, self.count).softmax(2)
        return torch.einsum("btk,kbh->tbh", gates, self.experts(x))  # [tasks, B, second]


class Ple(Experts):
    """One level: expert t is task t's own, the last `shared` are for all; task t's gate mixes [own, shared...]."""

    def __init__(self, inputs, tasks, shared, widths, generator):
        super().__init__(inputs, tasks + shared, widths, generator)
        self.tasks, self.shared = tasks, shared
        self.gate, self.gate_bias = self.weight(inputs, tasks * (1 + shared)), self.bias(tasks * (1 + shared))

    def forward(self, x):
        experts = self.experts(x)
        gates = (x @ self.gate + self.gate_bias).view(len(x), self.tasks, 1 + self.shared).softmax(2)
        mixed = []
        for t in range(self.tasks):
            seen = torch.cat([experts[t:t + 1], experts[self.tasks:]])
            mixed.append(torch.einsum("bk,kbh->bh", gates[:, t], seen))
        return torch.stack(mixed)  # [tasks, B, second]


class Funnel(Layer):
    """A tower of two ReLU layers per task, then the head: `independent`, `esmm` or `aitm` over a tree of tasks.

    `parents[t]` is None for a root, else an earlier task. In `aitm` what a task passes on is what came out of its
    own transfer (z, not the tower), so that a chain of any length is the paper's.
    """

    def __init__(self, kind, parents, inputs, widths, generator):
        super().__init__(generator)
        self.kind, self.parents = kind, parents
        self.children = [t for t, parent in enumerate(parents) if parent is not None]
        tasks, (hidden, out) = len(parents), widths
        self.w1, self.b1 = self.weight(tasks, inputs, hidden), self.bias(tasks, 1, hidden)
        self.w2, self.b2 = self.weight(tasks, hidden, out), self.bias(tasks, 1, out)
        if kind == "aitm":
            self.info, self.info_bias = self.weight(len(self.children), out, out), self.bias(len(self.children), 1, out)
            self.ait = self.weight(out, 3 * out)  # [W1 | W2 | W3], shared by all pairs
        self.out, self.out_bias = self.weight(tasks, out, 1), self.bias(tasks, 1, 1)

    def forward(self, h):
        q = torch.relu(h @ self.w1 + self.b1)
        q = list(torch.relu(q @ self.w2 + self.b2))
        if self.kind == "aitm":
            for c, t in enumerate(self.children):
                info = torch.relu(q[self.parents[t]] @ self.info[c] + self.info_bias[c])
                pair = torch.stack([q[t], info])  # [2, B, out]
                first, second, value = (pair @ self.ait).chunk(3, dim=2)
                score = (first * second).sum(2, keepdim=True) / math.sqrt(value.shape[2])
                q[t] = (score.softmax(0) * value).sum(0)
        return (torch.stack(q) @ self.out + self.out_bias).squeeze(2).t()  # [B, tasks]

    def log_probabilities(self, logits):
        """The logarithm of each task's probability on every impression: along the path from the root for `esmm`."""
        columns = []
        for t, parent in enumerate(self.parents):
            own = F.logsigmoid(logits[:, t])
            columns.append(own if self.kind != "esmm" or parent is None else own + columns[parent])
        return torch.stack(columns, dim=1)

    def loss(self, logits, labels):
        """Sum over tasks of the mean logistic loss; for `aitm` with the calibrator."""
        log_p = self.log_probabilities(logits)
        if self.kind == "esmm":
            log_not = torch.log(-torch.expm1(log_p))
            return -(labels * log_p + (1 - labels) * log_not).mean(0).sum()
        loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(0).sum()
        if self.kind == "aitm":
            p = log_p.exp()
            over = p[:, self.children] - p[:, [self.parents[t] for t in self.children]]
            loss = loss + CALIBRATOR * torch.relu(over).mean(0).sum()
        return loss


class Tower(Layer):
    """ReLU, a linear layer, and division by the length."""

    def __init__(self, inputs, hidden, width, generator):
        super().__init__(generator)
        self.w1, self.b1 = self.weight(inputs, hidden), self.bias(hidden)
        self.w2, self.b2 = self.weight(hidden, width), self.bias(width)

    def forward(self, x):
        return F.normalize(torch.relu(x @ self.w1 + self.b1) @ self.w2 + self.b2, dim=1)


class TwoTower(nn.Module):
    """Cosines over a temperature; softmax over the items of the batch, each corrected by its log frequency."""

    def __init__(self, user, item, temperature):
        super().__init__()
        self.user, self.item, self.temperature = user, item, temperature

    def forward(self, users, items):
        u, v = self.user(users), self.item(items)
        return u, v, u @ v.t() / self.temperature

    def loss(self, scores, ids, log_q, weights):
        """Columns of a row's own item, other than the diagonal, are no negatives."""
        twin = (ids.unsqueeze(1) == ids) & ~torch.eye(len(ids), dtype=torch.bool)
        corrected = (scores - log_q).masked_fill(twin, float("-inf"))
        return (weights * F.cross_entropy(corrected, torch.arange(len(ids)), reduction="none")).mean()
