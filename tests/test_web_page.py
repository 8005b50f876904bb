"""The page in headless Chromium: a scan goes up, its mask comes back, and is seen and heard."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import itertools
import json
import re
import shutil
from pathlib import Path

import dicom_series
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from running_server import running_server
from threshold_model import BONE_HU, NAMES, ORGAN_HU, write_threshold_model

from fcnseg.figures.palette import organ_rgb
from fcnseg.testing.phantom import make_phantom
from fcnseg.volumes import read_ct, read_label, write_volume
from serving.web_page import WebPage, page_file

PAGE = Path(__file__).parent.parent / "serving" / "page"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOT = Path("build/web_page.png")
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
in_chromium = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt-get install chromium)"),
]


# -- The files

PATHS = {
    "/": "text/html",
    "/page/page.js": "text/javascript",
    "/page/page.css": "text/css",
    "/page/settings.json": "application/json",
    "/page/vendor/niivue.js": "text/javascript",
    "/page/vendor/dcm2niix.wasm": "application/wasm",
    "/page/vendor/LICENSES.txt": "text/plain",
}


@pytest.mark.parametrize("path", PATHS)
def test_each_file_has_its_type_and_stays_on_this_server(path):
    file = page_file(path, model_names=["fcnseg"])
    assert file.media_type.startswith(PATHS[path])
    policy = dict(file.headers)["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert file.content


@pytest.mark.parametrize(
    "path", ["/page/", "/page/none", "/page/../server.py", "/page//etc/passwd", "/index.html", ""]
)
def test_other_paths_have_no_file(path):
    assert page_file(path, model_names=["fcnseg"]) is None


def asked(path, method="GET"):
    """What the page answers over ASGI, with an application behind it that says so."""
    sent = []

    async def behind(scope, receive, send):
        await send({"type": "http.response.start", "status": 418, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path}
    asyncio.run(WebPage(behind, lambda: ["a", "b"])(scope, None, send))
    return sent


def test_over_asgi_all_else_is_passed_on():
    start, body = asked("/page/settings.json")
    assert start["status"] == 200
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    settings = json.loads(body["body"])
    assert settings["model_names"] == ["a", "b"]
    assert settings["palette"][3] == list(organ_rgb(3))
    assert asked("/page/settings.json", "HEAD")[0] == start
    assert asked("/page/settings.json", "HEAD")[1]["body"] == b""
    for path, method in (("/v1/models/a", "GET"), ("/", "POST"), ("/page/none", "GET")):
        assert [message["status"] for message in asked(path, method)] == [418]


def test_what_the_page_names_is_there():
    named = re.findall(r'(?:href|src)="(page/[^"]+)"', (PAGE / "index.html").read_text())
    named += [f"page/vendor/{name}" for name in ("worker.js", "dcm2niix.js", "dcm2niix.wasm")]
    assert len(named) > 4
    for name in named:
        assert page_file(f"/{name}", model_names=["fcnseg"]) is not None
    ids = set(re.findall(r'\bid="([^"]+)"', (PAGE / "index.html").read_text()))
    asked = re.findall(r'element\("([\w-]+)"\)', (PAGE / "page.js").read_text())
    assert set(asked) <= ids


def test_each_control_has_a_label():
    html = (PAGE / "index.html").read_text()
    controls = re.findall(r'<(?:input|select)[^>]* id="([^"]+)"|<select id="([^"]+)"', html)
    ids = {one or other for one, other in controls}
    assert len(ids) >= 9
    assert ids == set(re.findall(r'for="([^"]+)"', html))


# -- In a browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    models = tmp_path_factory.mktemp("page") / "models"
    write_threshold_model(models / "1")
    with running_server(models) as (_, rest):
        yield rest


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser, address):
    """The page, opened; a fault of its scripts, or a request elsewhere, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    opened = context.new_page()
    faults = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    opened.on("request", lambda made: faults.append(made.url) if is_elsewhere(made.url) else None)
    opened.goto(address)
    opened.wait_for_selector("body[data-ready]")
    yield opened
    context.close()
    assert faults == []


def is_elsewhere(url):
    return not url.startswith(("http://127.0.0.1:", "blob:", "data:"))


@pytest.fixture(scope="module")
def phantom():
    image, _ = make_phantom(3, spacing=(5.0, 2.5, 2.5))
    return image


def message(page):
    return page.inner_text("#message")


def wait_for_mask(page):
    done = page.locator("#message").filter(has_text=re.compile("^(Done|No mask|Could not)"))
    done.wait_for(timeout=300_000)
    assert message(page).startswith("Done in "), message(page)


def expected_mask(image):
    hu = read_ct(image).array
    return (hu > ORGAN_HU).astype(np.uint8) + (hu > BONE_HU)


def picture(page):
    """A screenshot of the viewer, int (y, x, 3)."""
    shot = Image.open(io.BytesIO(page.locator("#canvas").screenshot()))
    return np.array(shot.convert("RGB")).astype(int)


def colours_seen(page):
    """The number of pixels of the viewer that are near each organ's colour."""
    shot = picture(page)
    return [
        int((np.abs(shot - organ_rgb(class_id)).max(axis=-1) < 40).sum()) for class_id in (1, 2)
    ]


class TestInChromium:
    pytestmark = in_chromium

    def test_a_nifti_gets_its_mask(self, page, phantom, tmp_path):
        image = tmp_path / "scan.nii.gz"
        write_volume(phantom, image)
        page.set_input_files("#file", image)
        wait_for_mask(page)
        expected = expected_mask(image)
        counts = np.bincount(expected.ravel(), minlength=3)

        rows = page.locator("#organs tbody tr").all_inner_texts()
        voxel_ml = phantom.geometry.voxel_mm3 / 1000
        for row, name, count in zip(rows, NAMES[1:], counts[1:], strict=True):
            shown, ml = row.split("\t")[-2:]
            assert shown.strip() == name
            assert float(ml) == pytest.approx(count * voxel_ml, abs=0.051)

        with page.expect_download() as download:
            page.click("#download")
        assert download.value.suggested_filename == "scan_mask.nii"
        download.value.save_as(tmp_path / "mask.nii")
        mask = nib.load(tmp_path / "mask.nii")
        np.testing.assert_array_equal(np.asarray(mask.dataobj).T, expected)
        np.testing.assert_allclose(mask.affine, phantom.affine, atol=1e-4)

        SHOT.parent.mkdir(exist_ok=True)
        page.screenshot(path=SHOT)
        page.locator("#opacity").fill("100")
        seen = colours_seen(page)
        assert min(seen) > 500
        page.uncheck("#organ-1")
        assert colours_seen(page)[0] < seen[0] / 10
        assert colours_seen(page)[1] > 500

    def test_a_folder_of_dicom_gets_its_mask(self, page, tmp_path):
        array = np.full((12, 40, 36), -900, np.int16)
        array[2:9, 8:30, 5:20] = 60
        array[4:6, 10:14, 6:12] = 700
        folder = dicom_series.write(dicom_series.make_slices(array), tmp_path / "series")
        page.set_input_files("#folder", folder)
        wait_for_mask(page)
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "mask.nii")
        geometry = read_ct(folder).geometry
        mask = read_label(tmp_path / "mask.nii")
        expected = (array > ORGAN_HU).astype(np.uint8) + (array > BONE_HU)
        assert sorted(np.bincount(mask.array.ravel())) == sorted(np.bincount(expected.ravel()))
        assert mask.geometry.voxel_mm3 == pytest.approx(geometry.voxel_mm3, rel=1e-3)

    def test_a_scan_is_dropped(self, page, phantom, tmp_path):
        """A folder is walked likewise, but only a person can drop one."""
        image = tmp_path / "scan.nii.gz"
        write_volume(phantom, image)
        transfer = page.evaluate_handle(
            """(base64) => {
                const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], "dropped.nii.gz"));
                return transfer;
            }""",
            base64.b64encode(image.read_bytes()).decode(),
        )
        page.dispatch_event("main", "drop", {"dataTransfer": transfer})
        wait_for_mask(page)
        assert page.get_attribute("#download", "download") == "dropped_mask.nii"

    @pytest.mark.parametrize("signature", ["model_info", "segment_nifti"])
    def test_another_scan_ends_the_call_of_the_one_before(self, page, phantom, tmp_path, signature):
        held = []

        def hold_first(route):
            if held or signature not in route.request.post_data_buffer.decode():
                route.continue_()
            else:
                held.append(route)

        page.route("**/*:predict", hold_first)
        for name in ("one", "two"):
            write_volume(phantom, tmp_path / f"{name}.nii.gz")
        with page.expect_request(lambda made: signature in (made.post_data or "")):
            page.set_input_files("#file", tmp_path / "one.nii.gz")
        with page.expect_event("requestfailed") as failed:
            page.set_input_files("#file", tmp_path / "two.nii.gz")
        assert failed.value.failure == "net::ERR_ABORTED"
        wait_for_mask(page)
        assert page.get_attribute("#download", "download") == "two_mask.nii"

    def test_all_is_done_with_the_keyboard(self, page, phantom, tmp_path):
        image = tmp_path / "scan.nii"
        write_volume(phantom, image)
        page.set_input_files("#file", image)
        wait_for_mask(page)
        reached = []
        page.locator("body").focus()
        for _ in range(20):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
        wanted = ["file", "folder", "model", "window", "layout", "opacity", "left-right"]
        wanted += ["back-front", "feet-head", "organ-1", "organ-2", "download", "canvas"]
        assert [each for each in reached if each in wanted][: len(wanted)] == wanted
        before = page.input_value("#feet-head")
        page.focus("#feet-head")
        page.keyboard.press("ArrowRight")
        assert int(page.input_value("#feet-head")) == int(before) + 1
        assert re.fullmatch(r"-?\d+ HU(, .+)?", page.inner_text("#place"))
        planes = picture(page)
        page.select_option("#window", label="Bone (400, 1800)")
        assert np.abs(picture(page) - planes).mean() > 1  # of 255 grey levels
        pictures = []
        for layout in ("planes", "axial", "coronal", "sagittal", "organs"):
            page.select_option("#layout", layout)
            pictures.append(picture(page))
        assert min(colours_seen(page)) > 0
        for one, other in itertools.combinations(pictures, 2):
            assert (one != other).any(axis=-1).mean() > 0.05

    def test_a_screen_reader_is_told(self, page, phantom, tmp_path):
        assert page.get_by_role("status").inner_text() == "No scan yet."
        image = tmp_path / "scan.nii.gz"
        write_volume(phantom, image)
        page.set_input_files("#file", image)
        wait_for_mask(page)
        assert page.get_by_role("status").inner_text().endswith("2 of 2 organs found.")
        assert page.get_by_role("img").get_attribute("aria-label") == (
            "Scan scan.nii.gz with a mask of soft tissue, bone"
        )
        assert page.get_by_role("table", name="Organs").count() == 1
        assert page.get_by_role("checkbox", name="bone").is_checked()
        for name in ("Window", "Layout", "Opacity of the mask", "Feet to head", "NIfTI file"):
            assert page.get_by_label(name, exact=True).count() == 1

    @pytest.mark.parametrize(
        ("name", "content", "told"),
        [
            ("scan.nii.gz", gzip.compress(b"no NIfTI" * 100), "Could not open|No mask"),
            ("notes.gz", b"text", "Could not open: no NIfTI file and no DICOM series"),
        ],
        ids=["broken", "text"],
    )
    def test_what_is_no_scan_is_told(self, browser, address, tmp_path, name, content, told):
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        (tmp_path / name).write_bytes(content)
        page.set_input_files("#file", tmp_path / name)
        page.wait_for_selector("#message.failed", timeout=60_000)
        assert re.match(told, message(page))
        page.close()
