"""The codebook's running means against their closed form, k-means and enumeration."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.variational.codebook import Codebook, perplexity


def filled(vectors: Tensor, counts: Tensor, decay: float, revive: float = 0.0) -> Codebook:
    """A codebook in the middle of its life."""
    book = Codebook(len(vectors), vectors.shape[1], decay, revive)
    book.vectors.copy_(vectors)
    book.counts.copy_(counts)
    book.sums.copy_(vectors * counts[:, None])
    return book


def test_the_nearest_code_is_the_nearest_of_all() -> None:
    torch.manual_seed(0)
    book, z = filled(torch.randn(7, 3), torch.ones(7), 0.9), torch.randn(5, 3, 4, 2)
    distances = (z[:, None] - book.vectors[None, :, :, None, None]).square().sum(2)  # (B, K, h, w)
    index = book.nearest(z)
    assert torch.equal(index, distances.argmin(1))
    for b, i, j in ((0, 0, 0), (4, 3, 1)):
        assert torch.equal(book(index)[b, :, i, j], book.vectors[index[b, i, j]])


def test_the_nearest_code_does_not_depend_on_the_precision_of_training() -> None:
    torch.manual_seed(0)
    book, z = filled(torch.randn(512, 16) / 100, torch.ones(512), 0.9), torch.randn(64, 16, 4, 4) / 100
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(book.nearest(z), torch.cdist(z.movedim(1, -1), book.vectors).argmin(-1))


def test_means_are_those_of_the_closed_form_after_k_batches() -> None:
    """N = γ^k N_0 + (1 - γ) Σ γ^(k - i) n_i and so for the sums; e is their ratio with the smoothed count."""
    torch.manual_seed(0)
    size, decay, k = 5, 0.8, 6
    book = filled(torch.randn(size, 2), torch.rand(size) * 10, decay)
    counts, sums = book.counts.double(), book.sums.double()
    batches = [(torch.randn(9, 2, 3), torch.randint(size, (9, 3))) for _ in range(k)]
    for z, index in batches:
        book.observe(z, index)
        book.follow()
    counts, sums = decay**k * counts, decay**k * sums
    for i, (z, index) in enumerate(batches, start=1):
        flat = z.movedim(1, -1).reshape(-1, 2).double()
        for code in range(size):
            mine = index.reshape(-1) == code
            counts[code] += (1 - decay) * decay ** (k - i) * mine.sum()
            sums[code] += (1 - decay) * decay ** (k - i) * flat[mine].sum(0)
    torch.testing.assert_close(book.counts.double(), counts, rtol=1e-5, atol=1e-6)
    smoothed = (counts + 1e-5) / (counts.sum() + size * 1e-5) * counts.sum()
    torch.testing.assert_close(book.vectors.double(), sums / smoothed[:, None], rtol=1e-4, atol=1e-5)


def test_a_fixed_point_of_k_means_is_one_of_the_codebook_and_others_come_to_it() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    z = (centres[:, None] + torch.randn(3, 50, 2) / 2).reshape(-1, 2)
    means = torch.stack([z[i * 50 : (i + 1) * 50].mean(0) for i in range(3)])  # well apart: Lloyd's iteration ends here
    book = filled(centres + torch.tensor([1.0, -1.0]), torch.ones(3), 0.5)
    for _ in range(60):
        book.observe(z, book.nearest(z))
        book.follow()
    torch.testing.assert_close(book.vectors, means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(book.counts, torch.full((3,), 50.0))
    before = book.vectors.clone()
    book.observe(z, book.nearest(z))
    book.follow()
    torch.testing.assert_close(book.vectors, before, rtol=1e-6, atol=1e-6)


def test_perplexity_is_the_number_of_codes_that_are_used_alike() -> None:
    assert perplexity(torch.full((8,), 3.0)).item() == pytest.approx(8)
    assert perplexity(torch.tensor([5, 0, 0, 5])).item() == pytest.approx(2)
    assert perplexity(torch.tensor([0.0, 9.0])).item() == pytest.approx(1)
    p = torch.tensor([0.7, 0.2, 0.1])
    assert perplexity(40 * p).item() == pytest.approx(math.exp(-(p * p.log()).sum()))


def test_codes_that_nobody_uses_are_put_on_vectors_and_others_are_left() -> None:
    torch.manual_seed(0)
    vectors, counts = torch.randn(6, 2), torch.tensor([50.0, 0.4, 30.0, 0.0, 40.0, 0.7])
    book, z = filled(vectors, counts, 0.9, revive=0.03), torch.randn(10, 2, 3) + 100  # of 20.2 in the mean: below 0.606
    book.revive(z)
    alive = torch.tensor([0, 2, 4, 5])
    assert torch.equal(book.vectors[alive], vectors[alive])
    assert torch.equal(book.counts[alive], counts[alive])
    rows = z.movedim(1, -1).reshape(-1, 2)
    for code in (1, 3):
        assert (rows == book.vectors[code]).all(1).any()
        assert book.counts[code].item() == pytest.approx(30 / 6)
        torch.testing.assert_close(book.sums[code], book.counts[code] * book.vectors[code])
    assert not torch.equal(book.vectors[1], book.vectors[3])


def test_all_codes_begin_on_vectors_of_the_first_batch() -> None:
    torch.manual_seed(0)
    book, z = Codebook(4, 3, 0.9, revive=0.0), torch.randn(20, 3)
    book.revive(z)
    first = book.vectors.clone()
    assert all((z == vector).all(1).any() for vector in first)
    assert len(first.unique(dim=0)) == 4
    book.revive(torch.randn(20, 3))
    assert torch.equal(book.vectors, first), "with revive=0 never again"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"size": 1}, "size=1: at least 2 codes"),
        ({"dim": 0}, "dim=0: a code has at least 1 dimension"),
        ({"decay": 1.0}, "decay=1.0"),
        ({"revive": -0.1}, "revive=-0.1"),
    ],
)
def test_what_cannot_be_a_codebook_is_one_line(choice: dict[str, float], message: str) -> None:
    with pytest.raises(GenlabError, match=message):
        Codebook(**{"size": 4, "dim": 2, "decay": 0.9, "revive": 0.1} | choice)  # type: ignore[arg-type]


def test_two_ranks_have_the_codebook_of_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    book, batches = filled(torch.randn(8, 3), torch.rand(8) * 4, 0.9), [torch.randn(20, 3, 2) for _ in range(4)]
    torch.save({"start": book.state_dict(), "z": batches}, tmp_path / "batches.pt")
    probe = [sys.executable, str(Path(__file__).parent / "codebook_probe.py"), str(tmp_path)]
    processes = [subprocess.Popen([*probe, str(rank)], stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    for z in batches:
        book.observe(z, book.nearest(z))
        book.follow()
    for name, tensor in book.state_dict().items():
        for rank in (0, 1):
            torch.testing.assert_close(torch.load(tmp_path / f"followed{rank}.pt")[name], tensor)
    first, second = (torch.load(tmp_path / f"revived{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first), "one rank chooses for both"
    rows = batches[0].movedim(1, -1).reshape(-1, 3)
    assert all((rows == vector).all(1).any() for vector in first["vectors"][:4])
    assert first["counts"][:4].tolist() == [5.0] * 4, "the share of a uniform code in the 40 vectors of both"
