"""Names in records that stay inside the image folder."""

from retinanet.data.coco.records import leads_outside


def test_names_that_lead_outside() -> None:
    assert not leads_outside("a/b.jpg")
    assert all(map(leads_outside, ("/a", "../a", "a/../b", "C:\\a", "C:a", "\\a", "a\\..\\b")))
