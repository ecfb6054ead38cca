"""Weight files: where they are looked for, what is verified, and what is said where there is none."""

import hashlib
import http.server
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genlab.errors import GenlabError
from genlab.evaluation.weights import Weights

CONTENT = os.urandom(3 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAMES = ["weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"]


class Server(http.server.ThreadingHTTPServer):
    asked = 0
    pause = 0.0  # seconds before it answers
    content = CONTENT
    length = len(CONTENT)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        time.sleep(self.server.pause)
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.length))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def weights(tmp_path: Path, server: Server | None = None, path: Path | None = None) -> Weights:
    port = 9 if server is None else server.server_address[1]  # nobody listens at 9
    own = None if path is None else str(path)
    return Weights(f"http://127.0.0.1:{port}/w.pth", SHA256, NAMES, str(tmp_path / "cache"), own)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_of_another_program_is_found_by_either_name(name: str, tmp_path: Path, hub: Path) -> None:
    (hub / name).write_bytes(CONTENT)
    assert weights(tmp_path).find() == hub / name
    assert not (tmp_path / "cache").exists()


def test_a_given_path_goes_before_all(tmp_path: Path, hub: Path) -> None:
    (hub / NAMES[0]).write_bytes(b"something else")
    own = tmp_path / "own.pth"
    own.write_bytes(CONTENT)
    assert weights(tmp_path, path=own).find() == own
    with pytest.raises(GenlabError, match=r"cannot read the weights .*none\.pth \(No such file.*they are at http"):
        weights(tmp_path, path=tmp_path / "none.pth").find()


def test_it_is_downloaded_once(tmp_path: Path, server: Server) -> None:
    wanted = weights(tmp_path, server)
    found = wanted.find()
    assert found == tmp_path / "cache" / "weights" / NAMES[0]
    assert found.read_bytes() == CONTENT
    assert wanted.find() == found
    assert server.asked == 1
    assert sorted(p.name for p in found.parent.iterdir()) == [".lock", NAMES[0]]


def test_of_two_that_want_it_at_once_one_downloads_it(tmp_path: Path, server: Server) -> None:
    server.pause = 0.2
    with ThreadPoolExecutor(2) as pool:  # a lock belongs to an opened file, so threads stand for processes
        found = set(pool.map(lambda _: weights(tmp_path, server).find(), range(2)))
    assert found == {tmp_path / "cache" / "weights" / NAMES[0]}
    assert server.asked == 1


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"?", CONTENT[: len(CONTENT) // 2]], ids=["wrong", "cut short"])
def test_what_is_not_the_published_file_is_not_kept(content: bytes, tmp_path: Path, server: Server) -> None:
    server.content = content
    with pytest.raises(GenlabError, match=r"put it at .*cache/weights/weights-inception") as error:
        weights(tmp_path, server).find()
    assert "\n" not in str(error.value)
    assert [p.name for p in (tmp_path / "cache" / "weights").iterdir()] == [".lock"]


def test_a_damaged_copy_is_named_and_left_alone(tmp_path: Path, hub: Path) -> None:
    copy = hub / NAMES[1]
    copy.write_bytes(CONTENT[:-1])
    with pytest.raises(GenlabError, match=rf"{NAMES[1]} is not the published file .*delete it, and put that of http"):
        weights(tmp_path).find()
    assert copy.read_bytes() == CONTENT[:-1]


def test_without_network_it_is_said_where_to_put_the_file(tmp_path: Path) -> None:
    with pytest.raises(GenlabError, match=r"cannot download .*refused.*fetch http://.*put it at .*cache/weights"):
        weights(tmp_path).find()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_may_not_be_written(tmp_path: Path, server: Server) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(GenlabError, match="GENLAB_CACHE"):
        weights(tmp_path, server).find()


def test_a_cache_that_is_a_file(tmp_path: Path, server: Server) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(GenlabError, match=r"cannot write in .*GENLAB_CACHE"):
        weights(tmp_path, server).find()
