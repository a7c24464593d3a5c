"""Lists of GEMMs: what a file may say, and what an error says."""

import json
from pathlib import Path

import pytest

from gemmcast import Gemm, InputError
from gemmcast.gemm_list import ListedGemm, read_gemms, summed


def written(folder: Path, text: str, name: str = "gemms.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_needs_only_the_three_sizes(tmp_path: Path) -> None:
    path = written(tmp_path, "m,n,k\n16,4096,1024\n")
    assert read_gemms(path) == [ListedGemm(gemm=Gemm(m=16, n=4096, k=1024))]


def test_csv_with_everything(tmp_path: Path) -> None:
    header = "name, weight, m, n, k, batch, dtype, layout, kernel, beta\n"
    path = written(tmp_path, header + "experts, 48, 8, 4096, 1024, 128, bf16, nt, grouped, 0\n")
    gemm = Gemm(m=8, n=4096, k=1024, batch=128, dtype="bf16", layout="nt")
    expected = ListedGemm(gemm=gemm, weight=48, name="experts", kernel="grouped")
    assert read_gemms(path) == [expected]


@pytest.mark.parametrize("under_key", [True, False])
def test_json_says_the_same_as_csv(tmp_path: Path, under_key: bool) -> None:
    rows = [{"m": 16, "n": 64, "k": 32, "weight": 2.5, "name": "q"}, {"m": 1, "n": 64, "k": 32}]
    text = json.dumps({"gemms": rows} if under_key else rows)
    csv = written(tmp_path, "m,n,k,weight,name\n16,64,32,2.5,q\n1,64,32,,\n")
    assert read_gemms(written(tmp_path, text, "gemms.json")) == read_gemms(csv)


def test_json_takes_what_predict_prints(tmp_path: Path) -> None:
    gemm = {"m": 1, "n": 2, "k": 3, "batch": 1, "dtype": "fp16", "layout": "nt"}
    text = json.dumps([{**gemm, "alpha": 1.0, "beta": 1.0}])
    (listed,) = read_gemms(written(tmp_path, text))
    assert listed.gemm == Gemm(m=1, n=2, k=3, dtype="fp16", layout="nt", beta=1.0)


def test_dtype_and_layout_of_lines_without_one(tmp_path: Path) -> None:
    path = written(tmp_path, "m,n,k,dtype\n1,2,3,\n1,2,3,fp16\n")
    first, second = read_gemms(path, dtype="bf16", layout="nt")
    assert (first.gemm.dtype, first.gemm.layout) == ("bf16", "nt")
    assert (second.gemm.dtype, second.gemm.layout) == ("fp16", "nt")


def test_repeated_gemms_are_summed(tmp_path: Path) -> None:
    lines = ["m,n,k,weight,name", "1,2,3,2,q", "4,5,6,,", "1,2,3,0.5,o", "1,2,3,,q"]
    path = written(tmp_path, "\n".join(lines))
    first, second = read_gemms(path)
    assert (first.weight, first.name) == (3.5, "q + o")
    assert (second.weight, second.name) == (1.0, "")


def test_experts_are_not_summed_with_a_batch() -> None:
    gemm = Gemm(m=1, n=16, k=16, batch=8)
    batch = ListedGemm(gemm=gemm)
    experts = ListedGemm(gemm=gemm, kernel="grouped")
    assert summed([batch, experts]) == [batch, experts]


def test_many_names_become_few() -> None:
    gemm = Gemm(m=1, n=2, k=3)
    (one,) = summed(ListedGemm(gemm=gemm, name=f"layer{number}") for number in range(5))
    assert one.name == "layer0 + layer1 + layer2 + 2 more"


def test_spreadsheets_are_read(tmp_path: Path) -> None:
    path = tmp_path / "gemms.csv"
    path.write_bytes(b'\xef\xbb\xbf"m","n","k"\r\n\r\n16,32,64\r\n,,\r\n')
    assert read_gemms(path) == [ListedGemm(gemm=Gemm(m=16, n=32, k=64))]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("m,n\n1,2\n", "gemms.csv, line 1 = 'm,n': has no k; m, n and k are required"),
        ("m,n,k,kay\n1,2,3,4\n", "gemms.csv, line 1 = 'kay': unknown column; columns are m, n, k"),
        ("m,n,k,n\n1,2,3,4\n", "gemms.csv, line 1 = 'n': a column stands there twice"),
        ("64,64,64\n", "gemms.csv, line 1 = '64': unknown column"),
        ("m,n,k,weight\n1,2,3,1e300\n", "weight = 1e+300: must be a number above 0, at most 1e+15"),
        ("m,n,k\n1,2,3\n1,0,3\n", "gemms.csv, line 3, n = 0: must be a whole number"),
        ("m,n,k\n1,2,3.5\n", "gemms.csv, line 2, k = '3.5': must be a whole number"),
        ("m,n,k\n1,2,1_000\n", "gemms.csv, line 2, k = '1_000': must be a whole number"),
        ("m,n,k\n1,,3\n", "gemms.csv, line 2, n = '': is empty"),
        ("m,n,k\n1,2\n", "gemms.csv, line 2, k = '': is empty"),
        ("m,n,k\n1,2,3,4\n", "gemms.csv, line 2 = '1,2,3,4': has 4 cells under 3 columns"),
        ("m,n,k,dtype\n1,2,3,half\n", "gemms.csv, line 2, dtype = 'half': unknown dtype"),
        ("m,n,k,weight\n1,2,3,-1\n", "gemms.csv, line 2, weight = -1.0: must be a number above 0"),
        ("m,n,k,weight\n1,2,3,nan\n", "gemms.csv, line 2, weight = nan: must be a number above 0"),
        ("m,n,k,weight\n1,2,3,x\n", "gemms.csv, line 2, weight = 'x': must be a number"),
        ("m,n,k,kernel\n1,2,3,moe\n", "gemms.csv, line 2, kernel = 'moe': unknown kernel"),
        ('m,n,k\n1,"2"2,3\n', "no CSV (line 2"),
        ("m,n,k\n", "has no GEMM"),
        ("", "has no GEMM"),
        ("[]", "has no GEMM"),
        ('{"m": 1}', "no list of GEMMs"),
        ('[{"m": 1,\n "n": 2]', "no JSON (Expecting ',' delimiter: line 2"),
        ("[" * 100_000, "no JSON"),
        ('[{"m": 1, "m": 2, "n": 2, "k": 3}]', "a key stands twice in one object"),
        ("[[1, 2, 3]]", "gemms.csv, GEMM 1 = [1, 2, 3]: must be an object"),
        ('[{"m": true, "n": 2, "k": 3}]', "gemms.csv, GEMM 1, m = True: must be a whole number"),
        ('[{"m": 1, "n": 2, "k": 3, "weight": true}]', "weight = True: must be a number"),
        ('[{"m": 1, "n": 2, "k": 3, "dtype": 16}]', "dtype = 16: must be a text"),
        ('[{"m": 1, "n": 2, "k": null}]', "has no k"),
    ],
)
def test_error_says_where_what_and_the_way_out(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(InputError) as raised:
        read_gemms(written(tmp_path, text))
    message = str(raised.value)
    assert error in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_gemms(tmp_path / "absent.csv")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_gemms(binary)
