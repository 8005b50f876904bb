"""A frame that crashes its decoder is an error of its case, and nothing else ends."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from dicom_series import make_slices, stored_voxels
from dicom_series import write as write_series
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLSLossless

from fcnseg.errors import InputError
from fcnseg.volumes import read_ct
from fcnseg.volumes.formats.dicom import frame_decoding

STORED = stored_voxels((3, 32, 40))


@pytest.fixture
def series(tmp_path):
    """Slices in JPEG-LS."""
    slices = make_slices(STORED)
    for made in slices:
        made.compress(JPEGLSLossless, generate_instance_uid=False)
    return slices


def running():
    """The process that decodes for this thread."""
    return frame_decoding.decoding_process().running


def test_only_the_process_decodes_what_c_libraries_decode():
    frame_decoding.register()
    for syntax in frame_decoding.SYNTAXES:
        assert get_decoder(syntax).available_plugins == (frame_decoding.PLUGIN,)


def test_one_process_decodes_for_a_thread(tmp_path, series):
    path = write_series(series, tmp_path / "series")
    np.testing.assert_array_equal(read_ct(path).array, STORED)
    first = running()
    np.testing.assert_array_equal(read_ct(path).array, STORED)
    assert running() is first
    others = []

    def read():
        np.testing.assert_array_equal(read_ct(path).array, STORED)
        others.append(running())

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert others[0] is not first


def test_a_crash_refuses_its_case_and_the_next_is_read(tmp_path, series):
    path = write_series(series, tmp_path / "series")
    read_ct(path)
    crashed = running()
    os.kill(crashed.pid, signal.SIGSEGV)
    with pytest.raises(InputError, match=rf"decoder ended with status -{signal.SIGSEGV.value}"):
        read_ct(path)
    np.testing.assert_array_equal(read_ct(path).array, STORED)
    assert running() is not crashed


@pytest.mark.parametrize("seed", range(20))
def test_broken_frames_are_refused_or_read_by_their_own_header(tmp_path, series, seed):
    """Bytes of the stream are others: its size may be too, so nothing but a code may follow."""
    rng = np.random.default_rng(seed)
    frame = bytearray(get_frame(series[1].PixelData, 0, number_of_frames=1))
    for at in rng.integers(0, len(frame), 3):
        frame[at] = rng.integers(256)
    series[1].PixelData = encapsulate([bytes(frame)])
    try:
        array = read_ct(write_series(series, tmp_path / "series")).array
    except InputError:
        return
    np.testing.assert_array_equal(array[[0, 2]], STORED[[0, 2]])


def test_a_frame_that_claims_to_be_huge_is_refused(tmp_path, series):
    frame = get_frame(series[1].PixelData, 0, number_of_frames=1)
    start = frame.index(b"\xff\xf7") + 5  # rows and columns, of two bytes each
    huge = frame[:start] + b"\xff\xff\xff\xff" + frame[start + 4 :]
    series[1].PixelData = encapsulate([huge])
    with pytest.raises(InputError, match="incomplete or corrupt volume"):
        read_ct(write_series(series, tmp_path / "series"))
