"""What is to be expected of 8, 64 and 512 workers: a model of costs, not a measurement.

python benchmarks/workers.py                       # 10 Gbit/s, 50 µs from worker to worker
python benchmarks/workers.py --gbit 100 --microseconds 5

A step of N workers takes a fixed part, work and talk:

- the talk is a ring all-reduce of the gradients, ``2 (N - 1) / N * bytes / bandwidth``, and
  ``2 (N - 1) * latency`` for it and for each of the logs that Keras averages in every step
  (Patarasuk & Yuan 2009, doi:10.1016/j.jpdc.2008.09.002, whose ring has the least bytes);
- it does not overlap with the work;
- all workers are equally fast;
- the work of a worker is in proportion to its share of the batch, the fixed part is not;
- so that an image's draw does not depend on the number of workers, each makes the standard normal
  noise of the whole global batch and takes its part (`objectives.replicas`), in the step itself;
- each reads and binarizes the whole global batch and keeps its part, beside the step: the slower of
  the two counts. (Streams of parts, `datasets.stream(..., shard=...)`, do not.)
"""

import argparse
import dataclasses

LOGS = 4  # loss, elbo, reconstruction, kl: each a collective of its own
FIXED = 0.5e-3  # seconds of a step that do not depend on the batch: Python's part, two cores
NORMALS = 85e6  # standard normals a second, two busy cores
IMAGES = 126e3  # that `datasets.pipeline` gives a second, binarized dynamically, two busy cores


@dataclasses.dataclass(frozen=True)
class Network:
    """A recipe: what the model needs of it.

    Attributes:
        parameters: float32 numbers that are reduced in a step.
        batch: images of a step of one worker.
        step: seconds of it on two cores.
        noise: standard normals for each image: draws times latent dimensions.
    """

    parameters: int
    batch: int
    step: float
    noise: int


NETWORKS = {
    # Images a second on idle cores: RESULTS.md, the tables of `speed.py` and `settings.py`.
    "cvae-mnist-2d": Network(69_989, 100, 100 / 6_512, 2),
    "iwae-paper-iwae-50": Network(425_284, 100, 100 / 3_087, 50 * 50),
}


def all_reduce(num_bytes: float, workers: int, bandwidth: float, latency: float) -> float:
    """Seconds of a ring all-reduce.

    Args:
        num_bytes: that each worker holds.
        workers: in the ring.
        bandwidth: of one worker's link, bytes a second.
        latency: seconds from one worker to the next.
    """
    hops = 2 * (workers - 1)
    return hops / workers * num_bytes / bandwidth + hops * latency


def step(network: Network, workers: int, batch: int, bandwidth: float, latency: float) -> float:
    """Seconds of a step of that global batch."""
    work = (network.step - FIXED) * batch / workers / network.batch
    work += (batch - batch / workers) * network.noise / NORMALS  # its own part is in the step
    work = max(work, batch / IMAGES)
    talk = all_reduce(4 * network.parameters, workers, bandwidth, latency)
    talk += LOGS * all_reduce(4, workers, bandwidth, latency)
    return FIXED + work + talk


def rows(gbit: float, microseconds: float) -> list[tuple[str, ...]]:
    """The table: a step, and how many times the images a second of one worker."""
    bandwidth, latency = gbit * 1e9 / 8, microseconds * 1e-6
    found = [("recipe", "workers", "global batch", "step", "faster than one by", "efficiency")]
    for name, network in NETWORKS.items():
        for workers in (1, 8, 64, 512):
            # The recipe's batch shared, while there is an image for each; and one for each worker.
            for batch in sorted({network.batch // workers * workers, network.batch * workers}):
                if not batch:
                    continue
                seconds = step(network, workers, batch, bandwidth, latency)
                faster = batch / seconds / (network.batch / network.step)
                found.append(
                    (
                        name,
                        f"{workers}",
                        f"{batch:,}",
                        f"{1e3 * seconds:.1f} ms",
                        f"{faster:.2f}",
                        f"{faster / workers:.0%}",
                    )
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gbit", type=float, default=10.0, help="a second, of a worker's link")
    parser.add_argument("--microseconds", type=float, default=50.0, help="to the next worker")
    options = parser.parse_args()
    heading, *body = rows(options.gbit, options.microseconds)
    print("| " + " | ".join(heading) + " |")
    print("|---" * len(heading) + "|")
    for row in body:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
