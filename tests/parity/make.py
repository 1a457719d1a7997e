"""Writes the parity fixtures beside this file, or with --check compares them with what PyTorch gives now.

    pip install torch numpy
    python make.py [--check]
"""
import argparse
import json
import math
from pathlib import Path

import torch
from torch import nn

from originals import CALIBRATOR, Din, Funnel, Mmoe, Ple, Sim, Tower, TwoTower

HERE = Path(__file__).parent
BATCH = 5
HISTORY = [3, 0, 1, 6, 2]  # behaviours of each example: one history is empty
STEPS = 10
TREE = [None, 0, 0]  # click, and two outcomes after it
CHAIN = [None, 0, 0, 1]  # the same, and one after the first outcome


def draw(generator, *shape, scale=0.8):
    return torch.round(torch.randn(*shape, generator=generator) * scale, decimals=3)


def owners(counts):
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


def labels(parents):
    """Rows of a funnel: nothing follows what did not happen, and every task has both classes."""
    rows = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]])
    return rows[:, :len(parents)].to(torch.get_default_dtype())


class Pooling(nn.Module):
    """An interest layer alone, judged by its mean squared distance from `wanted`."""

    def __init__(self, **layer):
        super().__init__()
        (self.name, inner), = layer.items()
        self.add_module(self.name, inner)

    def forward(self, x):
        pooled = self.get_submodule(self.name)(x["target"], x["behaviours"], x["owner"])
        return (pooled - x["wanted"]).square().mean(), {"pooled": pooled}


class Head(nn.Module):
    """A funnel alone: `mixed` [tasks, B, inputs] is given."""

    def __init__(self, funnel):
        super().__init__()
        self.funnel = funnel

    def forward(self, x):
        logits = self.funnel(x["mixed"])
        return self.funnel.loss(logits, x["labels"]), {
            "logits": logits, "probabilities": self.funnel.log_probabilities(logits).exp()}


class Shared(nn.Module):
    """A sharing layer over `x` [B, inputs], then a funnel."""

    def __init__(self, funnel, **layer):
        super().__init__()
        (self.name, inner), = layer.items()
        self.add_module(self.name, inner)
        self.funnel = funnel

    def forward(self, x):
        return self.judge(x["x"], x["labels"])

    def judge(self, inputs, wanted):
        mixed = self.get_submodule(self.name)(inputs)
        logits = self.funnel(mixed)
        return self.funnel.loss(logits, wanted), {
            "mixed": mixed, "logits": logits, "probabilities": self.funnel.log_probabilities(logits).exp()}


class Graph(Shared):
    """The whole reference graph: [fields; din; any recent?; sim; any match?] -> PLE -> AITM."""

    def __init__(self, din, sim, ple, funnel, target_fields):
        super().__init__(funnel, ple=ple)
        self.din, self.sim, self.target_fields = din, sim, target_fields

    def forward(self, x):
        target = x["fields"][:, self.target_fields].flatten(1)
        parts = [x["fields"].flatten(1)]
        for layer, behaviours, owner in ((self.din, "recent", "recent_owner"), (self.sim, "match", "match_owner")):
            seen = torch.bincount(x[owner], minlength=len(target)) > 0
            parts += [layer(target, x[behaviours], x[owner]), seen.to(target.dtype).unsqueeze(1)]
        inputs = torch.cat(parts, dim=1)
        loss, outputs = self.judge(inputs, x["labels"])
        return loss, {"x": inputs, **outputs}


class Retrieval(nn.Module):
    """The two towers with the in-batch softmax."""

    def __init__(self, two_tower):
        super().__init__()
        self.two_tower = two_tower

    def forward(self, x):
        u, v, scores = self.two_tower(x["users"], x["items"])
        loss = self.two_tower.loss(scores, x["ids"], x["log_q"], x["weights"])
        return loss, {"user_vectors": u, "item_vectors": v, "scores": scores}


def cases():
    """(name, configuration, model, inputs) of every fixture. Each has its own generator, so none disturbs another."""
    g = torch.Generator().manual_seed(1)
    item, hidden = 4, (80, 40)
    yield "din", {"item": item, "hidden": hidden}, Pooling(din=Din(item, hidden, g)), {
        "target": draw(g, BATCH, item), "behaviours": draw(g, sum(HISTORY), item), "owner": owners(HISTORY),
        "wanted": draw(g, BATCH, item)}

    g = torch.Generator().manual_seed(2)
    item, age, heads, width = 8, 4, 2, 4
    yield "sim", {"item": item, "age": age, "heads": heads, "width": width}, Pooling(
        sim=Sim(item, age, heads, width, g)), {
        "target": draw(g, BATCH, item), "behaviours": draw(g, sum(HISTORY), item + age), "owner": owners(HISTORY),
        "wanted": draw(g, BATCH, heads * (item + age))}

    inputs, experts, tower = 8, (6, 5), (5, 4)
    for seed, (name, extra) in enumerate((("mmoe", {"experts": 3}), ("ple", {"shared": 2})), start=3):
        g = torch.Generator().manual_seed(seed)
        layer = (Mmoe if name == "mmoe" else Ple)(inputs, len(TREE), *extra.values(), experts, g)
        funnel = Funnel("independent", TREE, experts[1], tower, g)
        yield name, {"inputs": inputs, "expert": experts, "tower": tower, "parents": TREE, "funnel": "independent",
                     **extra}, Shared(funnel, **{name: layer}), {
            "x": draw(g, BATCH, inputs), "labels": labels(TREE)}

    for seed, kind in enumerate(("esmm", "aitm"), start=5):
        g = torch.Generator().manual_seed(seed)
        configuration = {"inputs": 6, "tower": tower, "parents": CHAIN, "funnel": kind}
        if kind == "aitm":
            configuration["calibrator"] = CALIBRATOR
        yield kind, configuration, Head(Funnel(kind, CHAIN, 6, tower, g)), {
            "mixed": draw(g, len(CHAIN), BATCH, 6), "labels": labels(CHAIN)}

    g = torch.Generator().manual_seed(7)
    fields, width, heads, target_fields = 3, 4, 2, [0, 2]
    item, hidden, match = 2 * width, (10, 6), [2, 1, 0, 3, 0]
    inputs = fields * width + item + 1 + heads * (item + width) + 1
    model = Graph(Din(item, hidden, g), Sim(item, width, heads, width, g), Ple(inputs, len(TREE), 2, experts, g),
                  Funnel("aitm", TREE, experts[1], tower, g), target_fields)
    yield "reference", {
        "fields": fields, "width": width, "target_fields": target_fields, "hidden": hidden, "heads": heads,
        "shared": 2, "expert": experts, "tower": tower, "parents": TREE, "funnel": "aitm",
        "calibrator": CALIBRATOR}, model, {
        "fields": draw(g, BATCH, fields, width), "recent": draw(g, sum(HISTORY), item),
        "recent_owner": owners(HISTORY), "match": draw(g, sum(match), item + width), "match_owner": owners(match),
        "labels": labels(TREE)}

    g = torch.Generator().manual_seed(8)
    shape = {"user": 7, "item": 6, "hidden": 8, "width": 4, "temperature": 0.2}
    user, item = (Tower(shape[name], shape["hidden"], shape["width"], g) for name in ("user", "item"))
    items = draw(g, BATCH, shape["item"])
    items[3] = items[1]  # the same item twice
    yield "two_tower", shape, Retrieval(TwoTower(user, item, shape["temperature"])), {
        "users": draw(g, BATCH, shape["user"]), "items": items, "ids": torch.tensor([11, 12, 13, 12, 14]),
        "log_q": torch.tensor([-2.5, -1.0, -4.0, -1.0, -3.0]), "weights": torch.tensor([1.0, 0.5, 1.0, 2.0, 0.0])}


def array(tensor):
    return {"shape": list(tensor.shape), "data": tensor.detach().flatten().tolist()}


def learned(name):
    """Whether the gradient of this input is asked for."""
    return name not in ("labels", "wanted", "ids", "log_q", "weights") and not name.endswith("owner")


def fixture(name, configuration, model, inputs):
    differentiable = {k: v.requires_grad_() for k, v in inputs.items() if learned(k)}
    loss, outputs = model(inputs)
    inner = {k: v for k, v in outputs.items() if k != "probabilities"}
    for tensor in inner.values():
        tensor.retain_grad()
    loss.backward()
    parameters = dict(model.named_parameters())
    wanted = {**parameters, **inner, **differentiable}
    result = {
        "name": name, "configuration": configuration,
        "parameters": {k: array(v) for k, v in parameters.items()},
        "inputs": {k: array(v) for k, v in inputs.items()},
        "outputs": {k: array(v) for k, v in outputs.items()},
        "loss": loss.item(),
        "gradients": {k: array(v.grad) for k, v in wanted.items()},
        "steps": [],
    }
    adam = torch.optim.Adam(parameters.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    for _ in range(STEPS):
        adam.zero_grad()
        model(inputs)[0].backward()
        adam.step()
        result["steps"].append(model(inputs)[0].item())
    return result


def difference(path, old, new):
    """The first place where two fixtures differ by more than rounding, or None."""
    if isinstance(new, float):
        return None if math.isclose(old, new, rel_tol=1e-9, abs_tol=1e-12) else f"{path}: {old} is now {new}"
    if isinstance(new, dict) and isinstance(old, dict) and old.keys() == new.keys():
        pairs = [(f"{path}.{k}", old[k], new[k]) for k in new]
    elif isinstance(new, list) and isinstance(old, list) and len(old) == len(new):
        pairs = [(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(old, new))]
    else:
        return None if old == new else f"{path}: not the same"
    return next(filter(None, (difference(*pair) for pair in pairs)), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing; exit 1 on a difference")
    check = parser.parse_args().check
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    found = False
    for name, *case in cases():
        path = HERE / f"{name}.json"
        new = json.loads(json.dumps(fixture(name, *case)))
        if check:
            problem = difference(name, json.loads(path.read_text()), new)
            found |= problem is not None
            print(problem or f"{name}: the same")
        else:
            path.write_text(json.dumps(new, separators=(",", ":")) + "\n")
            print(f"{name}: loss {new['loss']:.6f}, after {STEPS} steps {new['steps'][-1]:.6f}, "
                  f"{sum(len(v['data']) for v in new['parameters'].values())} parameters, {path.stat().st_size} bytes")
    raise SystemExit(found)


if __name__ == "__main__":
    main()
