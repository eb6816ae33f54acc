"""Where a bundle lies, and whether it is there at all."""

from __future__ import annotations

from pathlib import Path

from include.models.presence import find_folder, is_away
from tests.builders.bundles import write_bundle
from tests.builders.serving import bundle_files


def test_a_bundle_is_found_where_it_was_recorded_or_in_the_home_of_now(tmp_path: Path) -> None:
    home = tmp_path / "now"
    there = write_bundle(home / "models" / "loans" / "1", bundle_files(1))
    assert find_folder(str(there), tmp_path / "other") == str(there)
    before = "/srv/models/before/models/loans/1"
    assert find_folder(before, home) == str(there)
    assert find_folder("/srv/elsewhere/loans/1", home) == "/srv/elsewhere/loans/1"
    assert find_folder("/srv/models/loans/2", home) == "/srv/models/loans/2"


def test_what_is_missing_is_away_and_what_is_wrong_is_not(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", bundle_files(1))
    assert not is_away(bundle)
    (bundle / "model.txt").write_text("damaged")
    assert not is_away(bundle)
    (bundle / "model.txt").unlink()
    assert is_away(bundle)
    assert is_away(tmp_path / "none")
