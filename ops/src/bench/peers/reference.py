"""Training steps and scoring of the reference graph in PyTorch, timed. `sluice bench` runs this.

Standard input holds one JSON object:

    {"table_rows": N, "fields": F, "run": S, "all": A, "jobs": [JOB, ...]}
    JOB = {"kind": "step" | "score", "threads": T, "batches": [BATCH, ...]}
    BATCH = {"size": n, "rows": [...], "newest": [n lengths], "matching": [n lengths], "labels": [n * tasks]}

`rows` are the table rows of a batch end to end: F for each example, then (item, tag) of each of the newest behaviours, then
(item, tag, gap) of each matching one. Field 0 is the item, field 1 its tag.

Standard output gets JSON lines: {"torch", "parameters"} first, then one line for each job, {"kind", "batch", "threads", "seconds"}: the
seconds of one step or one pass, in the best of runs of S seconds over A seconds. Without torch the only line is {"missing": why}.
"""

import json
import math
import sys
import time

try:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits
except ImportError as error:
    print(json.dumps({"missing": f"{sys.executable} has no torch: {error}"}))
    sys.exit(0)

WIDTH, BEHAVIOUR, AGED = 16, 32, 48  # of a row, of (item, tag), of (item, tag, gap)
UNIT = (80, 40)  # hidden layers of DIN's activation unit
HEADS, KEY = 2, 16  # of SIM's attention
EXPERT, TOWER = (128, 64), (64, 32)
TASKS, SHARED = 3, 2  # click, and long_view and like below it
CALIBRATOR = 0.6
PRIORS = (0.4, 0.3, 0.02)
DENSE_RATE, ROW_RATE, EPSILON = 1e-3, 0.05, 1e-10


class Batch:
    def __init__(self, given):
        self.size = given["size"]
        self.rows = torch.tensor(given["rows"])
        newest, matching = torch.tensor(given["newest"]), torch.tensor(given["matching"])
        each = torch.arange(self.size)
        self.newest_of, self.matching_of = each.repeat_interleave(newest), each.repeat_interleave(matching)
        self.present = torch.stack([newest > 0, matching > 0], 1).float()
        self.labels = torch.tensor(given["labels"]).view(self.size, TASKS)


class Graph(torch.nn.Module):
    """DIN over the newest behaviours, SIM over the matching ones, PLE, towers, AITM. Gives `[n, TASKS]` logits."""

    def __init__(self, fields):
        super().__init__()
        self.fields = fields
        inputs = fields * WIDTH + BEHAVIOUR + 1 + HEADS * AGED + 1
        experts, children = TASKS + SHARED, TASKS - 1
        shapes = {
            "unit1": (4 * BEHAVIOUR, UNIT[0]), "unit2": UNIT, "unit3": (UNIT[1], 1),
            "expert1": (inputs, experts * EXPERT[0]), "expert2": (experts, *EXPERT),
            "tower1": (TASKS, EXPERT[1], TOWER[0]), "tower2": (TASKS, *TOWER), "head": (TASKS, TOWER[1], 1),
            "info": (children, TOWER[1], TOWER[1]),
        }
        for name, shape in shapes.items():
            self.make(name, *shape)
            bias = shape[-1:] if len(shape) == 2 else (shape[0], 1, shape[2])
            setattr(self, name + "_bias", torch.nn.Parameter(torch.zeros(bias)))
        self.make("key", AGED, HEADS * KEY)
        self.make("query", BEHAVIOUR, HEADS * KEY)
        self.make("transfer", TOWER[1], 3 * TOWER[1])
        self.gate = torch.nn.Parameter(torch.zeros(inputs, TASKS * (1 + SHARED)))
        self.gate_bias = torch.nn.Parameter(torch.zeros(TASKS * (1 + SHARED)))
        with torch.no_grad():
            self.head_bias.copy_(torch.tensor(PRIORS).logit().view(TASKS, 1, 1))

    def make(self, name, *shape):
        setattr(self, name, torch.nn.Parameter(torch.randn(shape) * (1.4 / math.sqrt(shape[-2]))))

    def forward(self, embedded, batch):
        n = batch.size
        of_fields = n * self.fields
        newest_end = of_fields + 2 * len(batch.newest_of)
        fields = embedded[:of_fields].view(n, self.fields * WIDTH)
        target = fields[:, :BEHAVIOUR]
        newest = embedded[of_fields:newest_end].view(-1, BEHAVIOUR)
        matching = embedded[newest_end:].view(-1, AGED)
        x = torch.cat([
            fields,
            self.din(target, newest, batch.newest_of),
            batch.present[:, :1],
            self.sim(target, matching, batch.matching_of),
            batch.present[:, 1:],
        ], 1)
        return self.funnel(self.ple(x))

    def din(self, target, behaviours, of):
        wide = target.index_select(0, of)
        h = torch.cat([wide, behaviours, wide - behaviours, wide * behaviours], 1)
        h = torch.addmm(self.unit1_bias, h, self.unit1).sigmoid_()
        h = torch.addmm(self.unit2_bias, h, self.unit2).sigmoid_()
        weighted = torch.addmm(self.unit3_bias, h, self.unit3) * behaviours
        return weighted.new_zeros(target.shape).index_add_(0, of, weighted)

    def sim(self, target, behaviours, of):
        n = len(target)
        key = (behaviours @ self.key).view(-1, HEADS, KEY)
        query = (target @ self.query).index_select(0, of).view(-1, HEADS, KEY)
        score = (key * query).sum(2)
        # Scores are of order one: the largest of all is as good as each list's own to keep exp in range.
        e = (score - score.detach().max()).exp() if len(of) else score
        total = e.new_zeros(n, HEADS).index_add_(0, of, e)
        attention = e / total.index_select(0, of)
        heads = (attention.unsqueeze(2) * behaviours.unsqueeze(1)).view(-1, HEADS * AGED)
        return heads.new_zeros(n, HEADS * AGED).index_add_(0, of, heads)

    def ple(self, x):
        n = len(x)
        h = torch.addmm(self.expert1_bias, x, self.expert1).relu_()
        h = h.view(n, TASKS + SHARED, EXPERT[0]).transpose(0, 1)
        h = torch.baddbmm(self.expert2_bias, h, self.expert2).relu_()
        gates = torch.addmm(self.gate_bias, x, self.gate).view(n, TASKS, 1 + SHARED).softmax(2)
        own, *shared = gates.permute(2, 1, 0).unsqueeze(3)
        mixed = own * h[:TASKS]
        for gate, expert in zip(shared, h[TASKS:]):
            mixed = torch.addcmul(mixed, gate, expert)
        return mixed

    def funnel(self, h):
        q = torch.baddbmm(self.tower1_bias, h, self.tower1).relu_()
        q = torch.baddbmm(self.tower2_bias, q, self.tower2).relu_()
        root, own = q[:1], q[1:]
        heard = torch.baddbmm(self.info_bias, root.expand_as(own), self.info).relu_()
        k, v, w = (torch.stack([own, heard]) @ self.transfer).chunk(3, 3)
        score = (k * v).sum(3, keepdim=True)
        share = ((score[0] - score[1]) * (1 / math.sqrt(TOWER[1]))).sigmoid()
        z = torch.cat([root, torch.lerp(w[1], w[0], share)])
        return torch.baddbmm(self.head_bias, z, self.head).view(TASKS, -1).t()


class Learner:
    """Adam on the dense parameters; rows with one Adagrad accumulator each, gradients of a row summed before its step."""

    def __init__(self, table_rows, fields):
        torch.manual_seed(1)
        self.graph = Graph(fields)
        self.adam = torch.optim.Adam(self.graph.parameters(), lr=DENSE_RATE, fused=True)
        self.table = torch.randn(table_rows, WIDTH) * 0.01
        self.squares = torch.zeros(table_rows)
        self.place = torch.zeros(table_rows, dtype=torch.int64)

    def step(self, batch):
        embedded = self.table.index_select(0, batch.rows).requires_grad_()
        logits = self.graph(embedded, batch)
        p = logits.sigmoid()
        above = (p[:, 1:] - p[:, :1]).relu().sum() * (CALIBRATOR / batch.size)
        loss = binary_cross_entropy_with_logits(logits, batch.labels) * TASKS + above
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        self.learn_rows(batch.rows, embedded.grad)
        return loss

    def learn_rows(self, rows, gradient):
        each = torch.arange(len(rows))
        self.place[rows] = each  # one occurrence of each row stands for all
        one = self.place.index_select(0, rows)
        first = (one == each).nonzero().squeeze(1)
        summed = torch.zeros_like(gradient).index_add_(0, one, gradient).index_select(0, first)
        distinct = rows.index_select(0, first)
        total = self.squares.index_select(0, distinct) + summed.square().mean(1)
        self.squares.index_copy_(0, distinct, total)
        self.table.index_add_(0, distinct, summed * (-ROW_RATE / (total.sqrt() + EPSILON)).unsqueeze(1))

    @torch.inference_mode()
    def score(self, batch):
        return self.graph(self.table.index_select(0, batch.rows), batch).sigmoid_()


def best(call, batches, run, every):
    """Seconds of one call, after every batch was seen twice."""
    for batch in batches + batches:
        call(batch)
    shortest, calls, clock = math.inf, 0, time.perf_counter
    end = clock() + every
    while clock() < end:
        begun, before = clock(), calls
        while clock() - begun < run:
            call(batches[calls % len(batches)])
            calls += 1
        shortest = min(shortest, (clock() - begun) / (calls - before))
    return shortest


def main():
    wanted = json.load(sys.stdin)
    learner = Learner(wanted["table_rows"], wanted["fields"])
    parameters = sum(p.numel() for p in learner.graph.parameters())
    print(json.dumps({"torch": torch.__version__, "parameters": parameters}), flush=True)
    for job in wanted["jobs"]:
        torch.set_num_threads(job["threads"])
        batches = [Batch(batch) for batch in job["batches"]]
        call = {"step": learner.step, "score": learner.score}[job["kind"]]
        seconds = best(call, batches, wanted["run"], wanted["all"])
        answer = {"kind": job["kind"], "batch": batches[0].size, "threads": job["threads"], "seconds": seconds}
        print(json.dumps(answer), flush=True)


main()
