"""Column names: their meaning, and which are refused."""

from __future__ import annotations

import re

import pytest

from retinanet.convert.box_forms import CENTRE, CORNERS, TOP_LEFT, Form
from retinanet.convert.readers.csv.columns import (
    Columns,
    UnclearColumnsError,
    find_columns,
    meaning_of,
)
from retinanet.convert.readers.csv.suggest import suggest_columns


def columns(header: str, *, told: bool = False, has_label: bool = False) -> Columns:
    return find_columns(header.split(","), told=told, has_label=has_label)


@pytest.mark.parametrize(
    ("header", "form", "box", "evidence"),
    [
        ("path,x1,y1,x2,y2,class_name", CORNERS, (1, 2, 3, 4), "names"),
        ("filename,width,height,class,xmin,ymin,xmax,ymax", CORNERS, (4, 5, 6, 7), "names"),
        ("image,ymin,xmin,ymax,xmax,label", CORNERS, (2, 1, 4, 3), "names"),
        ("Image Path,X Min,Y-Min,x.max,Y_MAX,Category", CORNERS, (1, 2, 3, 4), "names"),
        ("img,left,top,right,bottom,object", CORNERS, (1, 2, 3, 4), "names"),
        ("file,x0,y0,x1,y1,class", CORNERS, (1, 2, 3, 4), "names"),
        ("file,tlx,tly,brx,bry,class", CORNERS, (1, 2, 3, 4), "names"),
        (
            "file,TopLeft_X,TopLeft_Y,BottomRight_X,BottomRight_Y,type",
            CORNERS,
            (1, 2, 3, 4),
            "names",
        ),
        ("bbox/xmin,bbox/ymin,bbox/xmax,bbox/ymax,image_id,name", CORNERS, (0, 1, 2, 3), "names"),
        ("frame,bb_left,bb_top,bb_width,bb_height,label", TOP_LEFT, (1, 2, 3, 4), "names"),
        ("filename,x1,y1,width,height,label", TOP_LEFT, (1, 2, 3, 4), "names"),
        ("filename,x,y,width,height,label", TOP_LEFT, (1, 2, 3, 4), "custom"),
        ("filename,col_x,row_y,width,height,label", TOP_LEFT, (1, 2, 3, 4), "custom"),
        ("filename,bbox_x,bbox_y,bbox_w,bbox_h,label", TOP_LEFT, (1, 2, 3, 4), "custom"),
        ("filename,row,col,width,height,label", TOP_LEFT, (2, 1, 3, 4), "custom"),
        ("filename,cx,cy,w,h,label", CENTRE, (1, 2, 3, 4), "names"),
        ("label,filename,xcenter,ycenter,width,height", CENTRE, (2, 3, 4, 5), "names"),
        ("filename,center_x,center_y,box width,box height,label", CENTRE, (1, 2, 3, 4), "names"),
        ("image_id,width,height,bbox_xywh,label", TOP_LEFT, (3,), "names"),
    ],
)
def test_forms(header: str, form: Form, box: tuple[int, ...], evidence: str) -> None:
    found = columns(header)
    assert (found.reading.form, found.box, found.reading.evidence) == (form, box, evidence)


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax", (2, 1)),
        ("filename,x1,y1,x2,y2,box_width,box_height,class", None),
        ("filename,x1,y1,width,height,label", None),
        ("filename,x,y,w,h,width,height,label", (6, 5)),
        ("filename,x,y,bbox_width,bbox_height,width,height,label", (6, 5)),
        ("filename,x,y,width,height,img_width,img_height,label", (6, 5)),
        ("image_id,width,height,xyxy,label", (2, 1)),
    ],
)
def test_image_size_or_box_size(header: str, size: tuple[int, int] | None) -> None:
    assert columns(header).size == size


@pytest.mark.parametrize(
    ("header", "units"),
    [
        ("f,image,norm_x,norm_y,norm_w,norm_h,label", "shares"),
        ("image,xmin_norm,ymin_norm,xmax_norm,ymax_norm,label", "shares"),
        ("image,x_center_relative,y_center_relative,w_relative,h_relative,label", "shares"),
        ("image,x_pct,y_pct,width_pct,height_pct,label", "percent"),
        ("image,x1_px,y1 (px),x2_pixels,y2_pixel,label", "px"),
        ("image,x1,y1,x2,y2,label", None),
    ],
)
def test_units(header: str, units: str | None) -> None:
    assert columns(header).units == units


def test_the_best_name_of_several() -> None:
    found = columns("id,image_id,file_name,x1,y1,x2,y2,category_id,category,score,iscrowd,area")
    assert (found.image, found.label, found.score, found.ignore) == (2, 8, 9, (10,))
    assert found.left_out == ["'id'", "'image_id'", "'category_id'", "'area'"]
    assert found.reading.columns_as(TOP_LEFT) == '"_,_,image,x,y,w,h,_,label,_,ignore,_"'
    assert columns("name,x1,y1,x2,y2,label").image == 0
    assert columns("image,x1,y1,x2,y2,name").label == 5
    assert columns("image,x1,y1,x2,y2,region_type,class").label == 6


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("image,a,b,c,d,label", "no column has the box"),
        ("image,x1,y1,x2,label", "'x1', 'y1', 'x2' do not make a box"),
        ("image,x,y,x_center,y_center,w,h,label", "several forms: x,y,w,h and cx,cy,w,h"),
        ("image,x1,y1,x2,y2,x,y,w,h,label", "several forms: x1,y1,x2,y2 and x,y,w,h"),
        ("image,x1,y1,x2,y2,xywh,label", "several forms: x1,y1,x2,y2 and x,y,w,h"),
        ("image,x1,y1,x2,y2,x3,y3,x4,y4,label", "boxes with four corner points"),
        ("image,tlx,tly,trx,try,brx,bry,blx,bly,label", "only one can be"),
        ("image,x0,y0,x1,y1,x2,y2,label", "x0 and y0 make a box only with x1 and y1"),
        ("image,bbox,label", "'bbox' does not show the form of the box: xyxy"),
        ("image,x1,x1,y1,x2,y2,label", "there are 'x1' and 'x1', and only one can be x1"),
        (
            "image,x1,y1,x2,y2,label,class",
            "there are 'label' and 'class', and it is not clear which",
        ),
        ("filename,file,x1,y1,x2,y2,label", "there are 'filename' and 'file', and it is not clear"),
        ("x1,y1,x2,y2,label", "no column names the image"),
        (
            "image,x1,y1,x2,y2",
            "no column has the class; to give all boxes the same class, use --label NAME",
        ),
        (
            "image,x1_norm,y1,x2,y2,label",
            "the column names do not show the same unit for all coordinates",
        ),
    ],
)
def test_unclear_names(header: str, message: str) -> None:
    with pytest.raises(UnclearColumnsError) as caught:
        columns(header)
    assert message in str(caught.value)


def test_names_that_the_user_gives() -> None:
    found = columns("image,-,x,y,w,h,_,label", told=True)
    assert found.reading.evidence == "told"
    assert found.left_out == []
    assert columns("image,x1,y1,x2,y2", told=True, has_label=True).label is None
    with pytest.raises(UnclearColumnsError, match="there is no column 'ww'; did you mean w"):
        columns("image,x,y,ww,h,label", told=True)
    with pytest.raises(
        UnclearColumnsError, match="no column is named label; name one, or give all"
    ):
        columns("image,x,y,w,h", told=True)


@pytest.mark.parametrize(
    "name", ["object_id", "region_count", "area", "split", "xx", "", "1", "id"]
)
def test_names_that_mean_nothing(name: str) -> None:
    assert meaning_of(name).what == ""


@pytest.mark.parametrize(
    ("header", "row", "options"),
    [
        ("", "a.jpg,9,8,30,4", ["image,x,y,w,h", "image,cx,cy,w,h"]),
        (
            "",
            "0,a.jpg,1,2,3,4,dog",
            [
                "_,image,x1,y1,x2,y2,label",
                "_,image,y1,x1,y2,x2,label",
                "_,image,x,y,w,h,label",
                "_,image,cx,cy,w,h,label",
            ],
        ),
        (
            "",
            "TRAIN,gs://b/a.jpg,dog,0.1,0.2,,,0.3,0.1,,",
            ["_,image,label,x,y,_,_,w,h,_,_", "_,image,label,cx,cy,_,_,w,h,_,_"],
        ),
        ("Bild,x1,y1,x2,y2,Klasse", "a.jpg,1,2,3,4,dog", ["image,x1,y1,x2,y2,label"]),
        ("image_id,bbox,source", "ab12;9 2 3 4;x", ["image,xywh,label", "image,cxcywh,label"]),
        ("file,x,y,cx,cy,w,h,label", "a.jpg,1,2,3,4,5,6,dog", ["image,x,y,_,_,w,h,label"]),
        ("x1,y1,x2,y2,label", "1,2,3,4,dog", []),
    ],
)
def test_what_is_suggested(header: str, row: str, options: list[str]) -> None:
    names = header.split(",") if header else []
    values = row.split(";") if ";" in row else row.split(",")
    suggested = suggest_columns(names, [values])
    assert re.findall('--columns "(.*?)"', suggested) == options
    for told in options:  # each works when typed
        assert columns(told, told=True, has_label="--label" in suggested)
