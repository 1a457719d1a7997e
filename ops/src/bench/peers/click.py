"""Logistic regression in Vowpal Wabbit, one example at a time, from its cache.

Standard input: {"file", "bits", "rounds"}, the file in VW's text format. Standard output: for one core, then for all (VW reads its cache on a second
thread), a line with the version, the number of cores, the shortest time that the examples took, how many they are, and their progressive log loss.
"""

import json
import os
import sys
import time

try:
    import vowpalwabbit
except ImportError as error:
    print(json.dumps({"missing": f"no vowpalwabbit in {sys.executable} ({error})"}))
    sys.exit(0)

job = json.load(sys.stdin)
cache = job["file"] + ".cache"


def learn(source):
    model = vowpalwabbit.Workspace(
        f"--loss_function logistic -b {job['bits']} --quiet --cache_file {cache} {source}"
    )
    begun = time.perf_counter()
    model.run_parser()
    took = time.perf_counter() - begun
    loss, examples = model.get_sum_loss(), model.get_weighted_examples()
    model.finish()
    return took, loss, examples


learn(f"-k -d {job['file']}")
everywhere = os.sched_getaffinity(0)
for cores in [{min(everywhere)}, everywhere]:
    os.sched_setaffinity(0, cores)
    runs = [learn("") for _ in range(job["rounds"])]
    _, loss, examples = runs[0]
    print(
        json.dumps(
            {
                "version": vowpalwabbit.__version__,
                "cores": len(cores),
                "seconds": min(run[0] for run in runs),
                "examples": examples,
                "log_loss": loss / max(examples, 1),
            }
        )
    )
