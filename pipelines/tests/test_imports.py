"""Anyone's files: formats, types, what is set aside, and mappings that are wrong."""

import gzip
import json
import zipfile
from pathlib import Path

import polars as pl
import pytest
import yaml

from madang_pipelines.imports.drafting import draft, likely_table
from madang_pipelines.imports.formats import read_file
from madang_pipelines.imports.guessing import guess_columns
from madang_pipelines.imports.importing import import_tables
from madang_pipelines.imports.mapping import Files, MappingError, read_mapping


def imported(folder: Path, mapping: dict, files: dict[str, str | bytes]):
    """What a mapping makes of files."""
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", **mapping}, allow_unicode=True), "utf-8")
    return import_tables(read_mapping(path))


def orders(**more):
    """A mapping of orders with one column of minutes."""
    return {"orders": {"files": "o.csv", "columns": {"minutes": "took"}, **more}}


def test_rows_that_do_not_fit_are_set_aside_with_their_lines(tmp_path):
    text = (
        "user,item,at,note\n"
        'a,1,1700000000,"two\nlines"\n'
        "b,2\n"
        "\n"
        "c,3,yesterday,x\n"
        ",4,1700000001,x\n"
        "d,5,1700000002,x,y\n"
        "e,6,1700000003,x\n"
        "f,7,1700000004,x\n"
        "g,8,1700000005,x\ng,8,1700000006,x\n"
    )
    mapping = {
        "interactions": {
            "files": "i.csv",
            "columns": {"user": "user", "item": "item", "time": "at"},
        }
    }
    table = imported(tmp_path, mapping, {"i.csv": text})["interactions"]
    assert table.frame.rows() == [
        ("a", "1", 1_700_000_000_000, ""),
        ("e", "6", 1_700_000_003_000, ""),
        ("f", "7", 1_700_000_004_000, ""),
        ("g", "8", 1_700_000_005_000, ""),
        ("g", "8", 1_700_000_006_000, ""),
    ]
    (quality,) = table.quality
    assert quality.read == 10
    assert quality.rows == [
        (4, "has 2 fields, not 4"),
        (5, "empty line"),
        (6, "time is not a time"),
        (7, "user is not given"),
        (8, "has 5 fields, not 4"),
    ]


@pytest.mark.parametrize("pack", ["plain", "gz", "zip", "bom", "latin-1", "semicolons", "tabs"])
def test_csv_as_it_comes(tmp_path, pack):
    rows = [("name", "item"), ("Café", "1"), ("Tea, green", "2")]
    how = {"files": "x.csv", "columns": {"item": "item", "name": "name"}}
    separator = {"semicolons": ";", "tabs": "\t"}.get(pack, ",")
    text = "".join(separator.join(f'"{c}"' if "," in c else c for c in row) + "\n" for row in rows)
    data = text.encode("latin-1" if pack == "latin-1" else "utf-8")
    if pack == "latin-1":
        how["encoding"] = "latin-1"
    elif pack == "bom":
        data = b"\xef\xbb\xbf" + data
    elif pack == "gz":
        how["files"], data = "x.csv.gz", gzip.compress(data)
    elif pack == "zip":
        how |= {"files": "x.zip", "member": "x.csv"}
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("in/x.csv", data)
        data = (tmp_path / "x.zip").read_bytes()
    table = imported(tmp_path, {"items": how}, {how["files"]: data})["items"]
    assert table.frame["name"].to_list() == ["Café", "Tea, green"]
    assert not table.quality[0].rows


def test_bytes_that_are_no_text_cost_their_row_only(tmp_path):
    data = "item,name\n1,좋은\n".encode() + b"2,\xff\xfe\n3,last\n"
    how = {"items": {"files": "x.csv", "columns": {"item": "item", "name": "name"}}}
    table = imported(tmp_path, how, {"x.csv": data})["items"]
    assert table.frame["item"].to_list() == ["1", "3"]
    assert table.quality[0].rows == [(3, "is not UTF-8")]


def test_json_lines_parquet_and_arrays_say_the_same(tmp_path):
    rows = [
        {"id": n, "at": {"lat": lat, "lng": 127}}
        for n, lat in ((7, 37.5), (8, 91), (9, 0), (10, 1))
    ]
    files = {
        "x.jsonl": "\n".join(map(json.dumps, rows)) + "\nnot json\n[1]\n",
        "x.json": json.dumps([*rows, "no object"]),
    }
    columns = {"item": "id", "latitude": "at.lat", "longitude": "at.lng"}
    flat = pl.DataFrame(
        {"id": [7, 8, 9, 10], "at.lat": [37.5, 91, 0, 1], "at.lng": 127}, strict=False
    )
    flat.write_parquet(tmp_path / "x.parquet")
    for name in ("x.jsonl", "x.json", "x.parquet"):
        how = {"items": {"files": name, "columns": columns}}
        table = imported(tmp_path, how, files)["items"]
        assert table.frame.drop("part").rows() == [
            ("7", 37.5, 127.0),
            ("9", 0.0, 127.0),
            ("10", 1.0, 127.0),
        ], name
        assert (2, "latitude is not between -90 and 90") in table.quality[0].rows


def test_lists_of_items_with_their_times(tmp_path):
    files = {
        "train.txt": "u1 a b\nu2 c\nu3\nu1 d\nu4 e f\nu5 g\n",
        "time.txt": "u1 100 200\nu2 300\nu3\nu4 1\nu5 400\n",
        "test.txt": "u1 z\n",
        "time_test.txt": "u1 900\n",
    }
    how = {
        "files": {"train": "train.txt", "test": "test.txt"},
        "beside": {"train": "time.txt", "test": "time_test.txt"},
        "format": "lists",
    }
    table = imported(tmp_path, {"interactions": how}, files)["interactions"]
    assert table.frame.rows() == [
        ("u1", "a", 100_000, "train"),
        ("u1", "b", 200_000, "train"),
        ("u2", "c", 300_000, "train"),
        ("u5", "g", 400_000, "train"),
        ("u1", "z", 900_000, "test"),
    ]
    assert [why for _, why in table.quality[0].rows] == [
        "user without items",
        "user given twice",
        "as many items as times are needed",
    ]


def test_public_formats(tmp_path):
    files = {
        "pairs.txt": "COL title VAL a b COL price VAL \tCOL title VAL a COL price VAL 3\t1\nbad\n",
        "docs": ".I 1\n.T\nwings\n.W\nthe flow\nof air\n.I 2\n.W\nheat\n.I\n",
        "qrels": "1 0 d1 2\n1  0\td2 0\n",
    }
    mapping = {
        "pairs": {
            "files": "pairs.txt",
            "format": "ditto",
            "columns": {"query": "left.title", "title": "right.title", "label": "label"},
        },
        "documents": {
            "files": "docs",
            "format": "smart",
            "columns": {"document": "id", "title": "title", "text": "text"},
        },
        "judgements": {
            "files": "qrels",
            "format": "csv",
            "header": False,
            "separator": " ",
            "columns": {"query": 0, "document": 2, "grade": 3},
        },
    }
    tables = imported(tmp_path, mapping, files)
    assert tables["pairs"].frame.rows() == [("a b", "a", True, "")]
    assert tables["documents"].frame.rows() == [
        ("1", "wings", "the flow of air", ""),
        ("2", None, "heat", ""),
    ]
    assert tables["judgements"].frame.rows() == [("1", "d1", 2.0, ""), ("1", "d2", 0.0, "")]


def test_values_units_and_formats(tmp_path):
    text = (
        "took,when,day,who,told,temp\n"
        "90,9:30:00 AM,2,7.0,Y,\n"
        "1_0,9:30:00 AM,1,8.0,N,12\n"
        "-5,9:30:00 AM,1,8.0,N,12\n"
        "120,12:00:00 PM,1,9.0,N,n/a\n"
    )
    mapping = {
        "orders": {
            "files": "o.csv",
            "columns": {
                "minutes": {"column": "took", "unit": "seconds"},
                "time": {"column": "when", "format": "%I:%M:%S %p", "weekday": "day"},
                "service": {"value": "bike"},
                "category": {"column": "told", "values": {"Y": "told", "N": "held"}},
                "user": {"sql": "concat('u', line)"},
            },
            "numbers": ["temp"],
            "categories": ["who"],
            "where": "who <> 'nobody'",
        }
    }
    table = imported(tmp_path, mapping, {"o.csv": text})["orders"]
    monday = 4 * 86_400_000
    assert table.frame["minutes"].to_list() == [1.5, 2.0]
    assert table.frame["time"].to_list() == [monday + 86_400_000 + 34_200_000, monday + 43_200_000]
    assert table.frame["category"].to_list() == ["told", "held"]
    assert table.frame["user"].to_list() == ["u2", "u5"]
    assert table.frame["temp"].to_list() == [None, None]
    assert table.frame["who"].to_list() == ["7.0", "9.0"]
    assert table.quality[0].rows == [
        (3, "minutes is not a number"),
        (4, "minutes is not between 0 and 100000"),
    ]


def test_joined_columns_come_from_the_first_row_alike(tmp_path):
    files = {"o.csv": "took,r\n1,a\n2,b\n3,x\n", "r.csv": "r,age\na,30\na,31\nb,40\n"}
    how = orders(join=[{"files": "r.csv", "by": "r"}], numbers=["age"])
    frame = imported(tmp_path, how, files)["orders"].frame
    assert frame["age"].to_list() == [30.0, 40.0, None]


def test_ids_that_are_there_twice(tmp_path):
    files = {"a.csv": "item\n1\n1\n2\n", "b.csv": "item\n2\n3\n"}
    how = {"items": {"files": ["a.csv", "b.csv"], "columns": {"item": "item"}}}
    table = imported(tmp_path, how, files)["items"]
    assert table.frame["item"].to_list() == ["1", "2", "3"]
    assert table.quality[0].rows == [(3, "item is there twice")]


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({}, "has no table"),
        ({"oders": {"files": "o.csv"}}, "oders: Extra inputs"),
        (orders(columns={"minuts": "took"}), "orders has no column minuts"),
        (orders(columns={"minutes": "tok"}), "do you mean 'took'?"),
        (orders(columns={"minutes": 9}), "there is no column 9; there are 2, from 0"),
        (orders(files="none.csv"), "there is no "),
        (orders(files="none-*.csv"), "there is no "),
        (orders(files="empty.csv"), "is empty"),
        (
            orders(numbers=["minutes", "took"], columns={"minutes": "took"}),
            "there is no column 'minutes'",
        ),
        (orders(columns={"minutes": {"sql": "nonsense("}}), "sql"),
        (orders(columns={"minutes": {"column": "took", "value": 1}}), "give one of"),
        (orders(columns={"minutes": "who"}), "the mapping does not fit"),
        (orders(columns={"service": {"column": "who", "values": {"a": "x"}}}), "what 'b' means"),
        (orders(where="took > 'z'"), "has no rows"),
        ({"interactions": {"files": "o.csv", "columns": {"user": "who"}}}, "needs the column item"),
        ({"items": {"files": "o.bin", "columns": {"item": "who"}}}, "give format"),
        ({"items": {"files": "bad.zip", "member": "x.csv", "columns": {"item": "who"}}}, "bad.zip"),
        ({"items": {"files": "bad.parquet", "columns": {"item": "who"}}}, "bad.parquet"),
        ({"items": {"files": "bad.csv.gz", "columns": {"item": "who"}}}, "bad.csv.gz"),
    ],
)
def test_a_wrong_mapping_says_what_would_be_right(tmp_path, mapping, said):
    files = {"o.csv": "took,who\n1,a\n2,b\n", "empty.csv": "", "o.bin": "x"}
    broken = dict.fromkeys(("bad.zip", "bad.parquet", "bad.csv.gz"), b"PK\x03\x04 no archive")
    with pytest.raises(MappingError) as refused:
        imported(tmp_path, mapping, files | broken)
    assert said in str(refused.value)


def test_types_are_guessed_and_make_a_mapping_that_reads_the_file(tmp_path):
    lines = ["order_id,pickup_lat,pickup_lng,lat,lng,order_time,duration,rain,vehicle,platform"]
    lines += [
        f"o{n},37.5,127.{n},37.{n},127,2024-03-01 10:{n}:00,{60 + n},0.{n},{'bc'[n % 2]}ar,{n % 5}"
        for n in range(10, 60)
    ]
    path = tmp_path / "trips.csv"
    path.write_text("\n".join(lines) + "\n")
    guesses = guess_columns(read_file(path, Files(files="x")).frame)
    kinds = {guess.name: guess.kind for guess in guesses}
    assert kinds["pickup_lat"] == "latitude"
    assert kinds["platform"] == "whole number", "lat is in it, but it is none"
    assert kinds["order_time"] == "time"
    assert kinds["vehicle"] == "category"
    table = likely_table(guesses)
    assert table == "orders"
    (tmp_path / "trips.yaml").write_text(draft(path, guesses, table))
    found = import_tables(read_mapping(tmp_path / "trips.yaml"))["orders"]
    assert found.has("order", "origin_latitude", "longitude", "time", "minutes")
    assert found.numbers == ["rain", "platform"]
    assert found.categories == ["vehicle"]
    assert len(found.frame) == 50
    assert found.frame["minutes"][0] == 70


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("1700000000", "time"),
        ("1700000000123", "time"),
        ("2024-01-05T10:00:00Z", "time"),
        ("05/31/2024 10:00", "time"),
        ("True", "yes or no"),
        ("no", "yes or no"),
        ("17", "whole number"),
        ("1,234.5", "number"),
        ("18446744073709551615", "whole number"),
        ("NaN", "empty"),
        ("", "empty"),
        ("a longer text", "text"),
        ("Xy7", "id"),
    ],
)
def test_a_guess(value, kind):
    (guess,) = guess_columns(pl.DataFrame({"column": [value] * 2}))
    assert guess.kind == kind


def test_ready_mappings_are_mappings():
    folder = Path(__file__).parents[1] / "src/madang_pipelines/imports/ready"
    paths = sorted(folder.glob("*.yaml"))
    assert paths
    assert all(read_mapping(path).tables() for path in paths)
