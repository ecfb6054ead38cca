"""Run by test_codebook.py as two ranks: what a codebook becomes of the halves of a batch."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from genlab.variational.codebook import Codebook

if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(rank)  # random numbers of its own
    book = Codebook(8, 3, decay=0.9, revive=0.0)
    given = torch.load(folder / "batches.pt")
    book.load_state_dict(given["start"])
    for z in given["z"]:
        mine = z[rank::2]
        for part in mine.chunk(2):
            book.observe(part, book.nearest(part))
        book.follow()
    torch.save(book.state_dict(), folder / f"followed{rank}.pt")
    book.counts[:4] = 0
    book.revive(given["z"][0][rank::2])
    torch.save(book.state_dict(), folder / f"revived{rank}.pt")
    dist.barrier()  # one that leaves while the other still hears from it takes that one down
    dist.destroy_process_group()
