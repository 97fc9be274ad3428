"""The page to play on: whom its server answers, what it says, and the page in a real browser."""

import contextlib
import http.client
import io
import json
import shutil
import threading

import numpy as np
import pytest
from PIL import Image
from small_models import ONE_BLOCK, small_model

from lska_jax.analysis.demo.looking import Looking
from lska_jax.analysis.demo.server import MAX_BYTES, is_loopback, make_server
from lska_jax.analysis.photos import load_model
from lska_jax.tasks.predict import predict
from lska_jax.weights import ModelFacts, write_model_folder
from lska_jax.weights.pretrained import arrays_of


class Deaf(Looking):
    """Answers without a model."""

    def __init__(self):
        self.maps = {"none": "nothing"}

    def about(self):
        return {"name": "deaf"}

    def look(self, image, **asked):
        if image != b"photo":
            raise ValueError("no photo")
        return asked


@contextlib.contextmanager
def serving(looking):
    with make_server(looking) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def ask(port, path="/", *, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    method = "GET" if body is None else "POST"
    connection.request(
        method, path, body, {name.replace("_", "-"): v for name, v in headers.items()}
    )
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


@pytest.fixture(scope="module")
def port():
    with serving(Deaf()) as port:
        yield port


def test_the_page_may_load_nothing_from_elsewhere(port):
    answer, page = ask(port)
    assert answer.status == 200 and b"http" not in page.replace(b"<html", b"")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_photo_is_looked_at_as_the_page_asks(port):
    query = "/look?over=none&corruption=fog&severity=2"
    _, content = ask(port, query, body=b"photo", Origin=f"http://127.0.0.1:{port}")
    assert json.loads(content) == {"over": "none", "corruption": "fog", "severity": 2}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Content_Length": str(MAX_BYTES + 1)}, 413),
        ({"Content_Length": "-1"}, 400),
    ],
)
def test_whoever_is_not_the_page_is_refused(port, headers, status):
    answer, content = ask(port, "/look", body=b"", **headers)
    assert answer.status == status and json.loads(content)["error"]


def test_what_is_no_photo_is_said(port):
    answer, content = ask(port, "/look", body=b"text")
    assert answer.status == 422 and json.loads(content) == {"error": "no photo"}
    assert ask(port, "/look?severity=x", body=b"photo")[0].status == 422
    assert ask(port, "/../etc/passwd")[0].status == 404


def test_loopback_is_this_machine():
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = small_model(k=7, **ONE_BLOCK)
    prepared = model.preprocessing._replace(image_size=32)
    names = ("ant", "bee", "cat", "dog", "elk", "fox")
    facts = ModelFacts(config=model.config, preprocessing=prepared, class_names=names)
    return write_model_folder(tmp_path_factory.mktemp("m") / "model", facts, arrays_of(model))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("p") / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    return path


@pytest.mark.slow
def test_what_is_shown_is_what_predict_says(folder, photo):
    looking = Looking(load_model(folder))
    found = looking.look(photo.read_bytes())
    (prediction,) = predict(folder, [photo])
    assert [one["name"] for one in found["top"]] == [score.name for score in prediction.scores]
    np.testing.assert_allclose(
        [one["probability"] for one in found["top"]],
        [score.probability for score in prediction.scores],
        rtol=1e-5,
    )
    assert list(looking.maps) == ["gradcam", "stages/0/blocks/0/attention/gate", "none"]


@pytest.mark.slow
def test_corruptions_change_what_is_seen_and_mistakes_are_named(folder, photo):
    looking, image = Looking(load_model(folder)), photo.read_bytes()
    clean = looking.look(image, over="none")
    hidden = looking.look(image, over="none", corruption="fog", severity=3)
    assert clean["seen"] != hidden["seen"] and not clean["map"]
    assert looking.look(image, over="none", corruption="fog")["seen"] == clean["seen"]
    for wrong in ({"corruption": "rain", "severity": 1}, {"over": "lime"}):
        with pytest.raises(ValueError, match="rain|lime"):
            looking.look(image, **wrong)
    with pytest.raises(ValueError):
        looking.look(b"no image")


@pytest.mark.slow
def test_a_second_photo_compiles_nothing(folder, photo):
    from lska_jax.analysis import gradcam, intermediates

    looking = Looking(load_model(folder))
    file = io.BytesIO()
    Image.new("RGB", (30, 30), "red").save(file, "PNG")
    sizes = []
    for image in (photo.read_bytes(), file.getvalue()):
        for over in looking.maps:
            looking.look(image, over=over)
        programs = (gradcam._compute, intermediates._read_inputs, looking._probabilities)
        sizes.append([program._cache_size() for program in programs])
    assert sizes[0] == sizes[1]


@pytest.mark.slow
def test_the_page_works_in_a_browser(folder, photo, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install lska-jax[browser]")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("There is no chromium to start.")
    with serving(Looking(load_model(folder))) as port, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        problems, requests = [], []
        page.on(
            "console", lambda line: problems.append(line.text) if line.type == "error" else None
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"http://127.0.0.1:{port}")
        page.set_input_files("#file", str(photo))
        page.wait_for_selector('#results[data-shown="1"]', timeout=120_000)
        assert page.locator("#top li").count() == 5
        clean = page.get_attribute("#seen", "src")

        page.select_option("#corruption", "brightness")
        page.wait_for_selector('#results[data-shown="2"]', timeout=120_000)
        assert page.inner_text("#severity-shown") == "3"
        bright = page.get_attribute("#seen", "src")
        page.fill("#severity", "5")
        page.wait_for_selector('#results[data-shown="3"]', timeout=120_000)
        assert len({clean, bright, page.get_attribute("#seen", "src")}) == 3

        page.select_option("#over", "stages/0/blocks/0/attention/gate")
        page.wait_for_selector('#results[data-shown="4"]', timeout=120_000)
        assert "multiplies its input with" in page.inner_text("#map-caption")
        (tmp_path / "text.txt").write_text("no photo")
        page.set_input_files("#file", str(tmp_path / "text.txt"))
        page.wait_for_selector("#error:not(:empty)")
        # Nothing sticks out of a phone's screen.
        widths = "() => [document.documentElement.scrollWidth, innerWidth]"
        assert page.evaluate(widths) == [390, 390]
        browser.close()
    # A refused photo is an answer of status 422, which browsers log.
    assert [line for line in problems if "422" not in line] == []
    ours = ("blob:", "data:", f"http://127.0.0.1:{port}/")
    assert [address for address in requests if not address.startswith(ours)] == []
