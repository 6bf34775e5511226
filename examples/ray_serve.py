"""Serve a bundle on several GPUs or CPUs of this machine with Ray Serve.

    pip install 'pulse-edge[cpu,server,ray]'
    python examples/ray_serve.py --model my-bundle --replicas 2 --gpus 1

Each replica has a model of its own, and keeps the pages it has read. Without arguments, two
replicas of the embedded model run on the CPU. Ctrl-C or SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import signal

from pulse_edge.serve import ray
from pulse_edge.serve.config import ServeConfig

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", help="a bundle [default: the embedded model]")
parser.add_argument("--replicas", type=int, default=2, help="that always run")
parser.add_argument("--most", type=int, default=0, help="replicas under load [default: as many]")
parser.add_argument("--gpus", type=float, default=0, help="of each replica")
parser.add_argument("--cpus", type=float, default=1, help="cores of each replica")
parser.add_argument("--port", type=int, default=8000)
arguments = parser.parse_args()

fleet = ray.Fleet(
    bundle=arguments.model,
    config=ServeConfig(port=arguments.port),
    least=arguments.replicas,
    most=arguments.most,
    gpus=arguments.gpus,
    cpus=arguments.cpus,
    load={} if arguments.gpus else {"threads": max(1, int(arguments.cpus))},
)
ray.start(fleet)
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
print(f"{arguments.replicas} replicas at http://127.0.0.1:{arguments.port}", flush=True)
signal.sigwait((signal.SIGINT, signal.SIGTERM))
ray.stop()
