"""The explorer without a browser: its mathematics, what it takes in, and whom it answers."""

import asyncio
import base64
import contextlib
import errno
import gzip
import http.client
import io
import json
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.models import SHAPE, FactorAnalysis, conditional, small_vae
from tests.runs import heeds_interrupts
from tfp_vae import VAE, cli, networks, priors
from tfp_vae.explorer import Explored, UploadError, uploads


def binary_images(rng, count=12):
    return rng.integers(0, 2, (count, *SHAPE)).astype("float32")


@pytest.fixture
def explored(rng):
    return Explored(small_vae(latent_dim=3), binary_images(rng), np.arange(12) % 3)


# ---------------------------------------------------------------------- mathematics


def test_axes_hold_all_means_and_the_most_active_dimension_comes_first(explored):
    means = explored.vae.encode(explored.images).mean().numpy()
    np.testing.assert_allclose(explored.means, means, rtol=1e-5)
    assert list(np.diff(means.var(0)[explored.order]) < 0) == [True, True]
    assert (explored.low <= means.min(0)).all()
    assert (explored.high >= np.maximum(means.max(0), 3.09)).all()  # the normal's 99.9%


def test_a_tile_of_the_plane_is_the_image_at_its_middle(explored):
    z, n, (height, width, _) = explored.means[4], 4, SHAPE
    image = explored.plane(z, (2, 0), n)
    assert image.shape == (n * height, n * width, 1)
    for row, column in ((0, 0), (0, 3), (3, 1)):
        at = z.copy()
        step = (explored.high - explored.low) / n
        at[2] = explored.low[2] + (column + 0.5) * step[2]
        at[0] = explored.high[0] - (row + 0.5) * step[0]  # the first row is the uppermost
        tile = image[row * height :, column * width :][:height, :width]
        expected = explored.vae.decode(at[np.newaxis]).mean()[0]
        np.testing.assert_allclose(tile, expected, rtol=1e-4, atol=1e-6)


def test_an_exact_posterior_gives_the_likelihood_in_closed_form(rng):
    model = FactorAnalysis(rng)
    x = model.sample(rng, 3)
    explored = Explored(model.vae(), x, binarization="none")
    look = explored.look(x[1], num_samples=130)
    exact = model.log_likelihood(x)[1]
    assert look.log_likelihood.mean == pytest.approx(exact, abs=1e-3)
    assert look.elbo.mean == pytest.approx(exact, abs=1e-3)
    assert look.log_likelihood.standard_error < 1e-3
    np.testing.assert_allclose(look.mean, model.gain @ (x[1] - model.mu), rtol=1e-4)
    np.testing.assert_allclose(look.covariance, model.posterior_cov, rtol=1e-3)
    np.testing.assert_allclose(look.stddev**2, np.diag(model.posterior_cov), rtol=1e-3)
    np.testing.assert_allclose(look.reconstruction, model.W @ look.mean + model.mu, rtol=1e-3)


def test_a_posterior_that_is_too_wide_gives_its_elbo_and_the_same_likelihood(rng):
    model = FactorAnalysis(rng)
    x = model.sample(rng, 2)
    look = Explored(model.vae(1.3), x, binarization="none").look(x[1], num_samples=2000, seed=3)
    assert 0 < look.log_likelihood.standard_error < 0.05
    errors = 4 * look.log_likelihood.standard_error, 4 * look.elbo.standard_error
    assert look.log_likelihood.mean == pytest.approx(model.log_likelihood(x)[1], abs=errors[0])
    assert look.elbo.mean == pytest.approx(model.elbo(x, 1.3)[1], abs=errors[1])
    assert look.num_samples == 2000


def test_draws_follow_the_seed_and_their_number(explored):
    x = explored.images[2]
    a, b, c = (explored.look(x, num_samples=150, seed=seed).elbo.mean for seed in (1, 1, 2))
    assert a == b != c
    assert np.isnan(explored.look(x, num_samples=1).log_likelihood.standard_error)


def test_between_two_images_is_what_the_model_interpolates(explored):
    images = explored.between(explored.means[3], explored.means[5], 6)
    expected = explored.vae.interpolate(explored.images[3], explored.images[5], 6)
    np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-6)


def test_a_conditional_model_is_that_of_the_class(rng):
    vae = conditional()
    x, y = binary_images(rng), np.arange(12) % 3
    explored = Explored(vae, x, y)
    np.testing.assert_allclose(explored.means, vae.encode((x, y)).mean(), rtol=1e-4, atol=1e-6)
    one = vae.for_label(2)
    np.testing.assert_allclose(
        explored.decode(explored.means, 2), one.decode(explored.means).mean(), rtol=1e-4
    )
    look = explored.look(x[0], 2, num_samples=2000)
    np.testing.assert_allclose(look.mean, one.encode(x[:1]).mean()[0], rtol=1e-4, atol=1e-6)
    value = one.log_likelihood(x[:1], 20_000, seed=1).numpy()[0]
    error = 4 * look.log_likelihood.standard_error
    assert look.log_likelihood.mean == pytest.approx(value, abs=error)
    assert error < 0.5
    with pytest.raises(ValueError, match="expected a class from 0 to 2, got 3"):
        explored.decode(explored.means, 3)


def filled(explored):
    """The page in a document of its own, without a browser."""
    pytest.importorskip("bokeh", reason="the extra explore is not installed")
    from bokeh.document import Document

    from tfp_vae.explorer.page import Page

    page = Page(explored)
    page.fill(Document())
    return page


@pytest.mark.parametrize("labels", [None, np.arange(12) % 3], ids=["none", "classes"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_page_of_any_images(labels, channels, rng):
    """Two latents have no choice of axes; colours are shown as they are."""
    shape, prior = (6, 5, channels), priors.StandardNormal(2)
    encoder = networks.dense_encoder(shape, 2, units=(8,), prior=prior)
    vae = VAE(encoder, networks.dense_decoder(shape, 2, units=(8,)), prior)
    images = rng.integers(0, 2, (12, *shape)).astype("float32")
    page = filled(Explored(vae, images, labels))
    assert not [model for model in page.document.models if type(model).__name__ == "Select"]
    page.number.value = 7
    shown = page.seen.data["image"][0].view(np.uint8).reshape(6, 5, 4)[::-1]
    np.testing.assert_array_equal(shown[..., :3], 255 * np.broadcast_to(images[7], (6, 5, 3)))
    page.document.validate()


def test_a_test_image_of_another_class_is_looked_at_once(rng, monkeypatch):
    """Its class is chosen with it, which alone would have the image at hand looked at."""
    vae = conditional()
    explored = Explored(vae, binary_images(rng), np.arange(12) % 3)
    looks, look = [], explored.look
    monkeypatch.setattr(
        explored, "look", lambda image, label: looks.append(label) or look(image, label)
    )
    page = filled(explored)
    page.number.value = 5
    page.number.value = 8  # of the same class
    assert looks == [0, 2, 2]
    assert page.classes.value == "2"
    np.testing.assert_allclose(page.latent.data["z"], vae.encode(
        (explored.images[8:9], np.array([2]))).mean()[0], rtol=1e-4, atol=1e-6)  # fmt: skip
    page.classes.value = "1"
    assert looks == [0, 2, 2, 1]


def test_images_are_treated_as_those_of_the_run(rng):
    grey = rng.random(SHAPE).astype("float32")
    vae, x = small_vae(), binary_images(rng)
    np.testing.assert_array_equal(Explored(vae, x).treated(grey), grey >= 0.5)
    np.testing.assert_array_equal(Explored(vae, x, binarization="none").treated(grey), grey)
    drawn = Explored(vae, x, binarization="dynamic").treated(grey)
    assert set(np.unique(drawn)) == {0, 1}


def spoiled_vae():
    vae = small_vae()
    vae.decoder.weights[0].assign(np.full(vae.decoder.weights[0].shape, np.nan))
    return vae


BAD = [
    pytest.param(lambda x: ("vae", x), TypeError, "vae: expected a tfp_vae.VAE", id="no vae"),
    pytest.param(lambda x: (small_vae(latent_dim=1), x), ValueError, "2 latent dimensions or more",
                 id="one dimension"),
    pytest.param(lambda x: (small_vae(), x[:0]), ValueError, "at least one, got none", id="none"),
    pytest.param(lambda x: (small_vae(), x, [1]), ValueError, "each of the 12 images", id="labels"),
    pytest.param(lambda x: (small_vae(), x.repeat(4, -1)), ValueError, r"1 or 3\), got \(12, ",
                 id="channels"),
    pytest.param(lambda x: (spoiled_vae(), x), ValueError, "weights: expected finite ones",
                 id="weights"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_what_cannot_be_explored_is_refused(arguments, error, message, rng):
    with pytest.raises(error, match=message):
        Explored(*arguments(binary_images(rng)))


# ---------------------------------------------------------------------- what a person brings


def png(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(stream, "PNG", **options)
    return stream.getvalue()


def photograph(ink=20, paper=230):
    """An L of 60×30 pixels, far from the middle."""
    pixels = np.full((200, 150), paper)
    pixels[20:80, 100:108] = pixels[72:80, 100:130] = ink
    return pixels


def test_a_digit_is_brought_into_place_as_mnist_was():
    digit = uploads.from_file(png(photograph()), (28, 28, 1), centred=True)[..., 0]
    rows, columns = (np.flatnonzero((digit > 0.3).any(axis)) for axis in (1, 0))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 10)
    assert digit.max() == 1
    mass = digit / digit.sum()
    middle = [(mass.sum(axis) * (np.arange(28) + 0.5)).sum() for axis in (1, 0)]
    np.testing.assert_allclose(middle, 14, atol=0.5)
    # The upright stroke is on the left and the foot below: neither mirrored nor upside down.
    assert digit[rows[3], columns[1]] > 0.5 > digit[rows[3], columns[-1]]
    assert digit[rows[-2], columns[-2]] > 0.5


def test_ink_may_be_dark_or_light_and_colours_are_left_out():
    dark = uploads.from_file(png(photograph()), (28, 28, 1), centred=True)
    light = uploads.from_file(png(photograph(230, 20)), (28, 28, 1), centred=True)
    np.testing.assert_allclose(dark, light, atol=0.02)
    coloured = np.repeat(photograph()[..., np.newaxis], 4, 2)
    coloured[..., 3] = np.where(photograph() == 20, 255, 0)  # the paper is transparent
    transparent = uploads.from_file(png(coloured), (28, 28, 1), centred=True)
    np.testing.assert_allclose(dark, transparent, atol=0.02)


def test_a_jpeg_is_turned_as_its_camera_says():
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    sideways = np.rot90(photograph()).astype(np.uint8)
    Image.fromarray(sideways).save(stream, "JPEG", exif=exif, quality=95)
    found = uploads.from_file(stream.getvalue(), (28, 28, 1), centred=True)
    expected = uploads.from_file(png(photograph()), (28, 28, 1), centred=True)
    np.testing.assert_allclose(found, expected, atol=0.15)


def test_without_centring_an_image_keeps_its_place_and_proportions():
    pixels = np.zeros((40, 80, 3))
    pixels[:, 40:, 0] = 255
    found = uploads.from_file(png(pixels), (32, 32, 3), centred=False)
    assert found.shape == (32, 32, 3)
    expected = np.zeros((32, 32, 3))
    expected[8:24, 16:, 0] = 1
    assert np.abs(found - expected).mean() < 0.02


def test_a_drawing_is_taken_row_by_row_from_the_top():
    ink = np.zeros((6, 5))
    ink[0, 4] = 255
    drawn = uploads.from_drawing(list(ink.ravel()), SHAPE, centred=False)
    np.testing.assert_allclose(drawn[..., 0], ink / 255, atol=1e-6)


def header_of(width, height):
    """A PNG file that promises so many pixels, and has none."""

    def chunk(kind, content):
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def gif():
    stream = io.BytesIO()
    Image.fromarray(photograph().astype(np.uint8)).save(stream, "GIF")
    return stream.getvalue()


def deep():
    stream = io.BytesIO()
    Image.fromarray(photograph().astype(np.uint16) * 200).save(stream, "PNG")
    return stream.getvalue()


REFUSED = [
    pytest.param(lambda: b"", "a damaged or other one", id="empty"),
    pytest.param(lambda: b"\x89PNG\r\n\x1a\n" + b"x" * 50, "a damaged or other one", id="garbage"),
    pytest.param(lambda: png(photograph())[:200], "a damaged or other one", id="cut short"),
    pytest.param(gif, "expected a PNG or JPEG file", id="another format"),
    pytest.param(deep, "expected 8 bits for each channel", id="16 bits"),
    pytest.param(lambda: header_of(60_000, 60_000), "at most 16,777,216 pixels", id="image bomb"),
    pytest.param(lambda: bytes(uploads.MAX_BYTES + 1), "at most 8 MB, got 8.0 MB", id="too large"),
    pytest.param(lambda: png(np.full((50, 50), 90)), "one even surface", id="nothing on it"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED)
def test_a_file_that_cannot_be_taken_is_refused(content, message):
    with pytest.raises(UploadError, match=message):
        uploads.from_file(content(), (28, 28, 1), centred=True)


@pytest.mark.parametrize(
    "ink",
    [
        pytest.param(None, id="nothing"),
        pytest.param([0.0] * 30, id="no stroke"),
        pytest.param([255.0] * 29, id="too few"),
        pytest.param([256.0] * 30, id="too bright"),
        pytest.param([float("nan")] * 30, id="nan"),
        pytest.param([[1.0], [1.0, 2.0]], id="ragged"),
        pytest.param(["a"] * 30, id="words"),
    ],
)
def test_a_drawing_of_something_else_is_refused(ink):
    with pytest.raises(UploadError, match="drawing: expected"):
        uploads.from_drawing(ink, SHAPE, centred=True)


# ---------------------------------------------------------------------- the server


@contextlib.contextmanager
def served(explored, host="127.0.0.1"):
    """The address of a server in a thread of its own."""
    pytest.importorskip("bokeh", reason="the extra explore is not installed")
    from tfp_vae.explorer import server

    said, loops = queue.Queue(), {}

    async def run():
        loops["loop"], loops["stop"] = asyncio.get_running_loop(), asyncio.Event()
        async with server.serving(explored, host, 0) as url:
            said.put(url)
            await loops["stop"].wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield said.get(timeout=60)
    finally:
        loops["loop"].call_soon_threadsafe(loops["stop"].set)
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def shared():
    images = binary_images(np.random.default_rng(0))
    return Explored(small_vae(latent_dim=3), images, np.arange(12) % 3, title="a run")


@pytest.fixture(scope="module")
def address(shared):
    with served(shared) as url:
        yield urllib.parse.urlsplit(url)


def get(address, path="/", method="GET", body=None, **headers):
    """(status, content); the path is sent as it is, as no browser would."""
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": address.netloc, **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_the_page_asks_nobody_else(address):
    status, content = get(address)
    assert status == 200
    assert b"a run" in content
    linked = [part.split(b'"')[0] for part in content.split(b'src="')[1:]]
    assert linked
    assert all(link.startswith(b"/static/") for link in linked)
    assert b"default-src 'none'; connect-src 'self'" in content
    assert get(address, linked[0].decode())[0] == 200


HOSTS = [
    pytest.param("localhost:8000", 200, id="the near end of a tunnel"),
    pytest.param("LOCALHOST", 200, id="capitals"),
    pytest.param("[::1]:5006", 200, id="IPv6"),
    pytest.param("evil.example", 403, id="another name"),
    pytest.param("127.0.0.1.evil.example:5006", 403, id="a name that begins alike"),
    pytest.param("localhost@evil.example", 400, id="a user name"),
    pytest.param("evil.example:localhost", 403, id="no port"),
    pytest.param("[::1", 403, id="no address"),
    pytest.param("0.0.0.0", 403, id="all addresses"),
]


@pytest.mark.parametrize(("host", "status"), HOSTS)
def test_only_this_machines_names_are_answered(host, status, address):
    for path in ("/", "/static/js/bokeh.min.js", "/metadata"):
        found, content = get(address, path, Host=host)
        assert found == (404 if status == 200 and path == "/metadata" else status)
        if status == 403:
            assert content.startswith(b"403: Host: expected one of")


FOREIGN = [
    pytest.param({"Origin": "http://evil.example"}, id="origin"),
    pytest.param({"Origin": "http://127.0.0.1:1"}, id="origin of another port"),
    pytest.param({"Origin": "null"}, id="origin of a file"),
    pytest.param({"Origin": "https://{host}"}, id="origin of another scheme"),
    pytest.param({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, id="an image tag"),
    pytest.param({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, id="another port"),
    pytest.param(
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        id="a frame",
    ),
    pytest.param({"Host": "evil.example", "Origin": "http://evil.example"}, id="rebound name"),
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_other_sites_get_neither_page_nor_websocket(headers, address):
    headers = {key: value.format(host=address.netloc) for key, value in headers.items()}
    assert get(address, **headers)[0] == 403
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "bokeh, token",
    }  # fmt: skip
    assert get(address, "/ws", **{**upgrade, **headers})[0] == 403
    assert get(address, "/ws", **upgrade, Origin=f"http://{address.netloc}")[0] == 101


PATHS = [
    "/../run.json",
    "/run.json",
    "/static/../__init__.py",
    "/static/../../bokeh/__init__.py",
    "/static/%2e%2e/__init__.py",
    "/static/%2e%2e%2f__init__.py",
    "/static/js/..%5c..%5c__init__.py",
    "/static//etc/passwd",
    "/static/extensions/../../etc/passwd",
    "//etc/passwd",
    "/static/..\\..\\__init__.py",
    "/autoload.js",
    "/metadata",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_the_page(path, address):
    status, content = get(address, path)
    assert status in (400, 403, 404)
    assert len(content) < 500


def test_a_large_request_is_refused_and_the_next_one_answered(address):
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        assert get(address, method="POST", body=bytes(2**20))[0] in (400, 405, 413)
    with contextlib.suppress(ConnectionError, http.client.HTTPException):
        assert get(address, X_Long="a" * 2**18)[0] in (400, 431)
    assert get(address)[0] == 200


class Client:
    """Speaks Bokeh's protocol word by word, as its scripts in a browser do."""

    def __init__(self, address):
        import tornado.websocket
        from bokeh.util.token import generate_jwt_token, generate_session_id

        self.loop = asyncio.new_event_loop()
        protocols = ["bokeh", generate_jwt_token(generate_session_id())]
        self.socket = self._run(
            lambda: tornado.websocket.websocket_connect(
                f"ws://{address.netloc}/ws", subprotocols=protocols
            )
        )
        self.number = 0
        assert self._receive()[0]["msgtype"] == "ACK"

    def _run(self, start):
        async def run():
            return await asyncio.wait_for(start(), 30)

        return self.loop.run_until_complete(run())

    def _read(self):
        return self._run(self.socket.read_message)

    def _receive(self):
        header, _, content = (json.loads(self._read()) for _ in range(3))
        pairs = (
            [(json.loads(self._read()), self._read()) for _ in range(header["num_buffers"])]
            if header.get("num_buffers")
            else []
        )
        self.buffers = {key["id"]: value for key, value in pairs}
        return header, content

    def ask(self, kind, content):
        """The kind and the content of the answer."""
        self.number += 1
        header = {"msgid": str(self.number), "msgtype": kind}
        for part in (header, {}, content):
            self.send(json.dumps(part))
        while True:
            header, content = self._receive()
            if header.get("reqid") == str(self.number):
                return header["msgtype"], content

    def send(self, text):
        self._run(lambda: self.socket.write_message(text, binary=isinstance(text, bytes)))

    def model(self, name):
        """The JSON of a model by its name."""
        self.document = self.ask("PULL-DOC-REQ", {})[1]
        return named(self.document, name)

    def set(self, name, data):
        """What the browser's scripts send where a source's columns are set."""
        reference = {"id": self.model(name)["id"]}
        new = {"type": "map", "entries": [[key, value] for key, value in data.items()]}
        event = {"kind": "ModelChanged", "model": reference, "attr": "data", "new": new}
        return self.ask("PATCH-DOC", {"events": [event]})[0]

    def column(self, name, key):
        return dict(self.model(name)["attributes"]["data"]["entries"]).get(key)

    def picture(self, name="picture"):
        """The pixels at the point, as `pixels`."""
        array = self.column(name, "image")[0]
        data = array["array"]["data"]  # older versions of Bokeh write it into the text
        content = base64.b64decode(data) if isinstance(data, str) else self.buffers[data["id"]]
        if content[:2] == b"\x1f\x8b":  # and some of them zipped
            content = gzip.decompress(content)
        return np.frombuffer(content, np.uint32).reshape(array["shape"])

    def close(self):
        async def close():  # within the loop: else one more would be made for it
            self.socket.close()
            await asyncio.sleep(0.05)

        self._run(close)
        self.loop.close()


def named(document, name, attribute="name"):
    if isinstance(document, dict):
        if document.get("attributes", {}).get(attribute) == name:
            return document
        document = list(document.values())
    for part in document if isinstance(document, list) else ():
        if found := named(part, name, attribute):
            return found
    return None


@pytest.fixture
def client(address):
    with contextlib.ExitStack() as stack:

        def start():
            opened = Client(address)
            stack.callback(opened.close)
            return opened

        yield start


def pixels(image):
    """As the page holds them: rows run upwards, red in the lowest byte."""
    grey = (image[::-1, :, 0] * 255).round().astype(np.uint32)
    return grey | grey << 8 | grey << 16 | 255 << 24


def test_two_browsers_have_their_own_points(client, shared):
    a, b = client(), client()
    before = b.picture()
    for z in ([1.0, -2.0, 0.5], [-1.0, 0.3, 2.0]):
        assert a.set("latent", {"z": z}) == "OK"
        expected = pixels(shared.vae.decode([z]).mean().numpy()[0])
        difference = (a.picture() & 255).astype(int) - (expected & 255).astype(int)
        assert np.abs(difference).max() <= 1
        np.testing.assert_array_equal(b.picture(), before)
    assert (a.picture() != before).any()


def test_a_point_of_the_same_picture_is_answered_too(client):
    opened = client()
    answers = set()
    for z in ([0.0, 0.0, 0.0], [0.0, 0.0, 1e-9]):
        opened.set("latent", {"z": z})
        answers |= set(opened.column("picture", "answer"))
    assert len(answers) == 2


def test_a_button_makes_the_image_that_is_shown_an_end_of_the_interpolation(client, shared):
    opened = client()
    width = shared.image_shape[1]
    for end, label in enumerate(("from this image", "to this image")):
        ink = np.zeros(30)
        ink[6 + 6 * end : 18 + 6 * end] = 255
        opened.set("drawn", {"ink": ink.tolist()})
        button = named(opened.document, label, "label")
        before = np.split(opened.picture("strip"), 10, 1)
        event = {
            "kind": "MessageSent", "msg_type": "bokeh_event",
            "msg_data": {"type": "event", "name": "button_click", "values": {
                "type": "map", "entries": [["model", {"id": button["id"]}]]}},
        }  # fmt: skip
        assert opened.ask("PATCH-DOC", {"events": [event]})[0] == "OK"
        after = np.split(opened.picture("strip"), 10, 1)
        assert after[0].shape[1] == width
        changed = [(a != b).any() for a, b in zip(after, before, strict=True)]
        assert changed[-end]
        assert not changed[end - 1]


NO_POINTS = {
    "too few": [1.0],
    "words": ["a", "b", "c"],
    "nan": [{"type": "number", "value": "nan"}] * 3,
    "a matrix": [[1.0, 2.0, 3.0]],
    "a number": 1.0,
}


def test_points_that_are_none_change_nothing(client):
    opened = client()
    before = opened.picture()
    for z in NO_POINTS.values():
        opened.set("latent", {"z": z})
        np.testing.assert_array_equal(opened.picture(), before)
    opened.set("latent", {"x": [1.0]})
    opened.set("latent", {"z": [2.0, 2.0, -2.0]})
    assert (opened.picture() != before).any()


def test_files_and_drawings_come_in_by_the_page(client):
    """Refused ones are one line on it, and the next one is taken."""
    opened = client()
    refused = {
        "not base64": "image: expected a file, got none.",
        base64.b64encode(header_of(60_000, 60_000)).decode(): "image: expected at most 16,777,216",
        base64.b64encode(bytes(100)).decode(): "image: expected a PNG or JPEG file",
    }
    for content, message in refused.items():
        opened.set("upload", {"content": [content]})
        assert message in opened.model("message")["attributes"]["text"]
    opened.set("upload", {"size": [9 * 2**20]})
    assert "at most 8 MB, got 9.0 MB" in opened.model("message")["attributes"]["text"]
    opened.set("drawn", {"ink": [300.0] * 30})
    assert "drawing: expected 6×5 numbers" in opened.model("message")["attributes"]["text"]
    figures = opened.model("figures")["attributes"]["text"]
    opened.set("upload", {"content": [base64.b64encode(png(photograph())).decode()]})
    assert not opened.model("message")["attributes"].get("text")
    taken = opened.model("figures")["attributes"]["text"]
    assert taken != figures
    opened.set("drawn", {"ink": [0.0] * 12 + [255.0] * 10 + [0.0] * 8})
    assert opened.model("figures")["attributes"]["text"] not in (taken, figures)


def test_a_page_cannot_make_the_server_read_its_files(client, tmp_path):
    """Bokeh's icons take paths, and hand out the image that lies there."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(photograph()))
    icon = {
        "type": "object", "name": "CustomAction", "id": "x1",
        "attributes": {"icon": str(secret)},
    }  # fmt: skip
    opened = client()
    latent = {"id": opened.model("latent")["id"]}
    new = {"type": "map", "entries": [["z", [icon]]]}
    gigabytes = {"type": "ndarray", "dtype": "S10000000", "array": ["a"] * 1000, "shape": [1000],
                 "order": "little"}  # fmt: skip
    attacks = [
        {
            "kind": "ModelChanged",
            "model": latent,
            "attr": "data",
            "new": {"type": "map", "entries": [["z", gigabytes]]},
        },
        {"kind": "ModelChanged", "model": latent, "attr": "data", "new": new},
        {"kind": "ModelChanged", "model": latent, "attr": "tags", "new": ["data", "name"]},
        {"kind": "ModelChanged", "model": latent, "attr": "subscribed_events", "new": [icon]},
        {"kind": "RootAdded", "model": icon},
        {"kind": "TitleChanged", "title": "taken over"},
        {"kind": "ColumnDataChanged", "model": latent, "attr": "data", "data": new},
        {"kind": "MessageSent", "msg_type": "x", "msg_data": icon},
        {"kind": "ModelChanged", "model": {"id": "p0"}, "attr": "data", "new": {}},
        {"kind": "ModelChanged", "model": 3, "attr": "data", "new": {}},
        "nothing",
    ]
    for attack in attacks:
        assert opened.ask("PATCH-DOC", {"events": [attack]})[0] == "OK"
    assert opened.ask("PUSH-DOC", {"doc": opened.document})[0] == "ERROR"
    assert opened.model("latent")["attributes"]["tags"] == ["data"]
    text = json.dumps(opened.document)
    for trace in ("CustomAction", "data:image", "taken over"):
        assert trace not in text


def test_an_oversized_message_closes_its_connection_alone(address, client):
    import tornado.websocket

    opened, other = client(), client()
    with contextlib.suppress(tornado.websocket.WebSocketClosedError):
        opened.send("x" * (uploads.MAX_BYTES * 4 // 3 + 2**17))
    assert opened._read() is None  # closed
    assert other.set("latent", {"z": [1.0, 1.0, 1.0]}) == "OK"


def test_an_oversized_message_in_parts_closes_its_connection_alone(address, client):
    """Bokeh's own bound is one of each part, of which a message says how many it has."""
    import tornado.websocket

    opened, other = client(), client()
    header = {"msgid": "1", "msgtype": "PATCH-DOC", "num_buffers": 1000}
    with contextlib.suppress(tornado.websocket.WebSocketClosedError):
        for part in (json.dumps(header), "{}", json.dumps({"events": []})):
            opened.send(part)
        for number in range(20):
            opened.send(json.dumps({"id": str(number)}))
            opened.send(bytes(2**20))
    assert opened._read() is None  # closed
    assert other.set("latent", {"z": [1.0, 1.0, 1.0]}) == "OK"


def test_a_link_leads_to_the_page_and_no_frame_shows_it(address):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert get(address, **link, **{"Sec-Fetch-Dest": "document"})[0] == 200
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        assert connection.getresponse().getheader("X-Frame-Options") == "DENY"


def test_where_all_addresses_are_listened_on_all_are_answered_and_no_names(shared):
    with served(shared, "0.0.0.0") as url:
        here = urllib.parse.urlsplit(url.replace("0.0.0.0", "127.0.0.1"))
        hosts = {"192.0.2.7": 200, "[2001:db8::1]:80": 200, "evil.example": 403}
        for host, status in hosts.items():
            assert get(here, Host=host)[0] == status
        assert b"or an address of this machine in digits" in get(here, Host="evil.example")[1]


def test_a_server_listens_on_its_own_address_alone(address):
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", address.port)) == errno.ECONNREFUSED
    assert cli.parser().parse_args(["explore", "runs/a"]).host == "127.0.0.1"


# ---------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.keras"
    prior = priors.StandardNormal(2)
    encoder = networks.dense_encoder((28, 28, 1), 2, units=(8,), prior=prior)
    VAE(encoder, networks.dense_decoder((28, 28, 1), 2, units=(8,)), prior).save(path)
    return path


def test_the_command_serves_until_ctrl_c(model):
    pytest.importorskip("bokeh", reason="the extra explore is not installed")
    options = ["--dataset", "digits", "--port", "0", "--no-browser", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tfp_vae", "explore", model, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # As a shell starts it: what runs in the background may have been told to ignore it.
        preexec_fn=heeds_interrupts,
    )
    try:
        address = urllib.parse.urlsplit(json.loads(process.stdout.readline())["url"])
        assert address.hostname == "127.0.0.1"
        status, content = get(address)
        assert status == 200
        assert b"model.keras, digits" in content
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        answers = True
        while answers:
            assert time.monotonic() < start + 30
            with socket.socket() as other:
                answers = other.connect_ex((address.hostname, address.port)) == 0
        _, errors = process.communicate(timeout=60)  # TensorFlow takes a while to end
        assert process.returncode == 0
        assert "Ctrl-C stops it" in errors
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()


def test_a_port_in_use_and_a_foreign_address_are_one_line_each(capsys):
    pytest.importorskip("bokeh", reason="the extra explore is not installed")
    command = ["explore", "nothing.keras", "--no-browser"]  # asked before it is opened
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main([*command, "--port", str(port)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"port: expected a free one, got {port}, which is in use" in said
    assert cli.main([*command, "--host", "192.0.2.1"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "host: expected an address of this machine, got '192.0.2.1'" in said


def test_without_bokeh_the_command_says_what_to_install(model, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["explore", str(model)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert 'pip install "bokeh>=3.8.2"' in said


@pytest.mark.parametrize("host", ["", " "])
def test_no_host_is_not_all_of_them(host, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["explore", "runs/a", "--host", host])
    assert stopped.value.code == 2
    assert "--host: expected an address or a name, got an empty one" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_a_wrong_command_line(port, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["explore", "runs/a", "--port", port])
    assert stopped.value.code == 2
