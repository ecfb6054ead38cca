"""Text as rows of bytes: every byte in its place, no row in both splits."""

from pathlib import Path

import pytest

from genlab.data.lines import TextLines
from genlab.errors import GenlabError

TEXT = "".join(f"line {i}: grün\n" for i in range(60)).encode()


@pytest.fixture
def source(tmp_path: Path):
    (tmp_path / "text.txt").write_bytes(TEXT)

    def source(length=20, stride=7, held_out=0.25, name="text.txt"):
        return TextLines("lines", length, stride, held_out, str(tmp_path / name))

    return source


def test_rows_are_the_bytes_of_the_file_and_the_last_lines_are_held_out(source):
    train, test = (source().split(name).x for name in ("train", "test"))
    cut = TEXT.index(b"\n", int(len(TEXT) * 0.75)) + 1
    assert [bytes(row) for row in train.numpy()] == [TEXT[i : i + 20] for i in range(0, cut - 19, 7)]
    assert [bytes(row) for row in test.numpy()] == [TEXT[i : i + 20] for i in range(cut, len(TEXT) - 19, 20)]
    assert bytes(test[0].numpy()).startswith(b"line ")


def test_another_text_has_another_name(source, tmp_path: Path):
    before = source().name
    (tmp_path / "text.txt").write_bytes(TEXT.replace(b"7", b"8"))
    assert source().name != before


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        (b"", {}, "has 0 bytes"),
        (b"short\n", {}, "6 bytes"),
        (TEXT[:30], {"held_out": 0.9}, "of them in its train split"),
        (TEXT, {"name": "none.txt"}, "cannot read .*none.txt: No such file"),
        (TEXT, {"name": "."}, "cannot read"),
        (TEXT, {"stride": 0}, "stride=0"),
        (TEXT, {"held_out": 1.0}, "held_out=1.0"),
    ],
)
def test_a_file_that_is_no_text_to_learn_from_is_one_line(source, tmp_path: Path, text, changes, said):
    (tmp_path / "text.txt").write_bytes(text)
    with pytest.raises(GenlabError, match=said):
        source(**changes).split("train")


def test_a_path_must_be_given_and_a_split_must_be_one_of_two(source):
    with pytest.raises(GenlabError, match=r"set data\.source\.path to a text file"):
        TextLines("lines", 20, 7, 0.1)
    with pytest.raises(GenlabError, match="no 'validation'"):
        source().split("validation")
