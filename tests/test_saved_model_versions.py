"""Versions of a served model: published, kept, deleted, withdrawn."""

from __future__ import annotations

import pytest

from fcnseg.errors import InputError
from fcnseg.saved_model.versions import list_versions, publish, roll_back
from serving.rollback import RollbackCommand


def make_model(base, text):
    saved = base / ".tmp-new" / "model"
    saved.mkdir(parents=True)
    (saved / "saved_model.pb").write_text(text)
    return saved


def publish_text(base, text, **options):
    saved = make_model(base, text)
    version = publish(saved, base, **options)
    saved.parent.rmdir()
    return version


def names(base):
    return sorted(child.name for child in base.iterdir())


def test_versions_follow_the_largest_number(tmp_path):
    for name in ("2", "10", "notes", ".tmp-11"):
        (tmp_path / name).mkdir()
    assert publish_text(tmp_path, "new").name == "11"
    assert list(list_versions(tmp_path)) == [2, 10, 11]


def test_numbers_that_no_server_sees_are_no_versions(tmp_path):
    for name in ("3", "9223372036854775808", "99999999999999999999"):
        (tmp_path / name).mkdir()
    assert publish_text(tmp_path, "new").name == "4"
    assert roll_back(tmp_path) == tmp_path / "3"
    (tmp_path / "9223372036854775807").mkdir()
    with pytest.raises(InputError, match="must leave a number above its versions"):
        publish_text(tmp_path, "new")


def test_older_versions_than_are_kept_are_deleted(tmp_path):
    for number in range(4):
        publish_text(tmp_path, f"model {number}", keep=2)
    assert names(tmp_path) == ["3", "4"]
    assert (tmp_path / "4" / "saved_model.pb").read_text() == "model 3"


def test_files_and_other_digits_are_no_versions_and_are_left_alone(tmp_path):
    (tmp_path / "1").write_text("a note")
    (tmp_path / "\N{ARABIC-INDIC DIGIT NINE}").mkdir()
    for number in (2, 3, 4):
        assert publish_text(tmp_path, "new", keep=1).name == str(number)
    assert list(list_versions(tmp_path)) == [4]
    assert (tmp_path / "1").read_text() == "a note"
    (tmp_path / "5").write_text("another")
    with pytest.raises(InputError, match="a version before the newest, got 4 in "):
        roll_back(tmp_path)
    assert publish_text(tmp_path, "new").name == "6"
    assert roll_back(tmp_path) == tmp_path / "4"


def test_versions_of_ten_and_more_are_newer_than_nine(tmp_path):
    for number in (9, 10):
        (tmp_path / str(number)).mkdir()
    publish_text(tmp_path, "new", keep=2)
    assert names(tmp_path) == ["10", "11"]


def test_roll_back_withdraws_the_newest_version_and_its_number(tmp_path):
    for number in range(3):
        publish_text(tmp_path, f"model {number}")
    RollbackCommand(tmp_path).run()
    assert names(tmp_path) == ["1", "2", "rolled_back_3"]
    assert publish_text(tmp_path, "mended").name == "4"
    assert roll_back(tmp_path) == tmp_path / "2"
    assert names(tmp_path) == ["1", "2", "rolled_back_3", "rolled_back_4"]


@pytest.mark.parametrize(("versions", "got"), [([], "none"), (["7"], "7")])
def test_roll_back_needs_a_version_to_go_back_to(tmp_path, versions, got):
    for name in versions:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"needs a version before the newest, got {got} in "):
        roll_back(tmp_path)
    assert names(tmp_path) == versions


def test_roll_back_of_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="model_dir must be a folder .*, got .*nowhere"):
        roll_back(tmp_path / "nowhere")
