"""One of two processes that take a step on half of a batch each; see test_interoperability.py."""

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.test_interoperability import X, step

if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = torch.load(folder / "model.pt", weights_only=False).eval()
    step(DistributedDataParallel(model), X[rank : rank + 1])
    if rank == 0:
        torch.save(model.state_dict(), folder / "stepped.pt")
    distributed.destroy_process_group()
