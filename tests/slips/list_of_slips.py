"""The list: what a first user gets wrong, by program. Each ends with one line, changing nothing."""

from __future__ import annotations

from slip import Slip, damage, write

BLAS = '[[sweep]]\nfamily = "blas"\nshapes = { sample = 5, max = 64 }\n'
PLAN = f'name = "p"\n{BLAS}'
REPLAY = f'name = "p"\ndevices = {{ kind = "replay", dataset = "d.parquet" }}\n{BLAS}'
CUDA = PLAN.replace("blas", "cublas").replace("[[", 'devices = { kind = "cpu" }\n[[')
HUGE = PLAN.replace("sample = 5, max = 64", "list = [[1000000, 1000000, 1000000]]")
CUSTOM = PLAN.replace('"blas"', '"custom"\nkernel = "no.toml"')
LONG = "/tmp/" + 120 * "x"


RUN = [
    Slip(command="coordinator", says="Missing command"),
    Slip(command="coordinator rnu p.toml", says="No such command 'rnu'"),
    Slip(command="coordinator run", says="Missing argument 'PLAN.toml'"),
    Slip(command="coordinator run p.toml --colour", says="No such option: --colour"),
    Slip(command="coordinator run p.toml", says="PLAN = 'p.toml': can't be read"),
    Slip(command="coordinator run ws", says="PLAN = 'ws': can't be read"),
    Slip(
        command="coordinator run bytes.toml",
        says="can't be read",
        prepare=write("bytes.toml", b"\xff\xfe\x00"),
    ),
    Slip(command="coordinator run no.toml", says="not TOML", prepare=write("no.toml", "name = ")),
    Slip(
        command="coordinator run key.toml",
        says="sweeps",
        prepare=write("key.toml", f"sweeps = 3\n{PLAN}"),
    ),
    Slip(
        command="coordinator run name.toml",
        says="name",
        prepare=write("name.toml", PLAN.replace('"p"', '"my plan"')),
    ),
    Slip(
        command="coordinator run family.toml",
        says="family",
        prepare=write("family.toml", PLAN.replace("blas", "mkl")),
    ),
    Slip(
        command="coordinator run bound.toml",
        says="measure.timeout_s",
        prepare=write("bound.toml", f"measure = {{ timeout_s = -1 }}\n{PLAN}"),
    ),
    Slip(command="coordinator run huge.toml", says="GiB", prepare=write("huge.toml", HUGE)),
    Slip(
        command="coordinator run cuda.toml --workspace new",
        says="can measure none of its cells (5 cells: family cublas needs a cuda device",
        prepare=write("cuda.toml", CUDA),
    ),
    Slip(
        command="coordinator run custom.toml",
        says="no.toml",
        prepare=write("custom.toml", CUSTOM),
    ),
    Slip(command="coordinator run r.toml", says="d.parquet", prepare=write("r.toml", REPLAY)),
    Slip(
        command="coordinator run model.onnx",
        says="can't be read",
    ),
    Slip(
        command="coordinator run p.toml --workspace p.toml",
        says="p.toml can't be made (File exists)",
        prepare=write("p.toml", PLAN),
    ),
    Slip(
        command="coordinator run p.toml --workspace /proc/self/ws",
        says="/proc/",
        prepare=write("p.toml", PLAN),
    ),
    Slip(
        command="coordinator run p.toml --workspace new",
        says="TMPDIR",
        prepare=write("p.toml", PLAN),
        environment={"RAY_TMPDIR": LONG},
    ),
    Slip(
        command="coordinator run p.toml --workspace new",
        says="--workspace = 'new': a relative path inside a Ray job",
        prepare=write("p.toml", PLAN),
        environment={"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"},
    ),
]
TUNINGS = [
    Slip(command="coordinator tune", says="give one of the two"),
    Slip(command="coordinator tune --gemms no.csv", says="can't be read"),
    Slip(command="coordinator tune --model no.json", says="can't be read"),
    Slip(
        command="coordinator tune --gemms g.csv --objective speed",
        says="unknown objective",
        prepare=write("g.csv", "m,n,k\n64,64,64\n"),
    ),
    Slip(
        command="coordinator tune --gemms g.csv --budget 10",
        says="--budget = '10': is no time",
        prepare=write("g.csv", "m,n,k\n64,64,64\n"),
    ),
    Slip(
        command="coordinator tune --gemms g.csv --devices replay:no.parquet",
        says="no such file",
        prepare=write("g.csv", "m,n,k\n64,64,64\n"),
    ),
    Slip(
        command="coordinator tune --gemms g.csv --families mkl",
        says="unknown kernel family",
        prepare=write("g.csv", "m,n,k\n64,64,64\n"),
    ),
]


PLANS = [
    Slip(command="coordinator plan p.toml", says="can't be read"),
    Slip(
        command="coordinator plan p.toml --device h900",
        says="--device = 'h900': is no known device; name one of: NVIDIA H100 80GB HBM3, ",
        prepare=write("p.toml", PLAN),
    ),
    Slip(
        command="coordinator plan p.toml --device nvidia",
        says="fits several devices",
        prepare=write("p.toml", PLAN),
    ),
    Slip(
        command="coordinator plan p.toml --device no.json",
        says="--device = 'no.json': can't be read",
        prepare=write("p.toml", PLAN),
    ),
    Slip(
        command="coordinator plan p.toml --device p.toml",
        says="not a device description",
        prepare=write("p.toml", PLAN),
    ),
    Slip(
        command="coordinator plan p.toml --device h100 --address auto",
        says="give one of the two",
        prepare=write("p.toml", PLAN),
    ),
    Slip(
        command="coordinator plan r.toml",
        says="not a Parquet file",
        prepare=lambda folder: [write("r.toml", REPLAY)(folder), write("d.parquet", "x")(folder)],
    ),
]
WORKSPACES = [
    Slip(command="coordinator train", says="holds no samples; run a plan there first"),
    Slip(command="coordinator status", says="holds no samples; run a plan there first"),
    Slip(command="coordinator report", says="holds no samples; run a plan there first"),
    Slip(command="coordinator compare", says="holds no samples; run a plan there first"),
    Slip(command="coordinator export d.parquet", says="holds no samples; run a plan there first"),
    Slip(command="coordinator status --workspace model.onnx", says="model.onnx"),
    Slip(command="coordinator status --store nowhere", says="no sample store there"),
    Slip(command="coordinator train --store nowhere", says="no sample store there"),
    Slip(command="coordinator train --workspace few", says="here are 60 over 20"),
    Slip(command="coordinator compare --workspace few", says="here are 60 over 20"),
    Slip(command="coordinator train --workspace ws --holdout 2", says="train.holdout = 2.0"),
    Slip(command="coordinator train --workspace ws --holdout nan", says="train.holdout = nan"),
    Slip(command="coordinator train --workspace ws --exam no.parquet", says="no.parquet"),
    Slip(command="coordinator train --workspace ws --min-rows many", says="'--min-rows'"),
    Slip(command="coordinator train --workspace ws --min-rows 1", says="train.min_rows = 1"),
    Slip(
        command="coordinator status --workspace ws --registry ftp://x", says="registry = 'ftp://x'"
    ),
    Slip(
        command="coordinator status --workspace ws",
        says="mlflow.db can't be read",
        prepare=damage("ws/registry/mlflow.db"),
    ),
    Slip(command="coordinator report --workspace ws --out few", says="few"),
    Slip(command="coordinator report --workspace ws --out /proc/self/r.html", says="/proc/self"),
]
TABLES = [
    Slip(command="coordinator import no.csv", says="no.csv"),
    Slip(command="coordinator import few", says="few"),
    Slip(command="coordinator import t.csv", says="t.csv", prepare=write("t.csv", "")),
    Slip(command="coordinator import t.csv", says="t.csv", prepare=write("t.csv", b"\xff\xfe\x81")),
    Slip(
        command="coordinator import t.csv --format xls", says="xls", prepare=write("t.csv", "m\n1")
    ),
    Slip(
        command="coordinator import t.csv --set m",
        says="--set = 'm': must be COLUMN=VALUE",
        prepare=write("t.csv", "m\n1"),
    ),
    Slip(
        command="coordinator import t.csv --device t.csv",
        says="not a device description",
        prepare=write("t.csv", "m\n1"),
    ),
    Slip(command="coordinator export d.xls --workspace ws", says="FILE = 'd.xls'"),
    Slip(command="coordinator export d --workspace ws --format csv", says="--format = 'csv'"),
    Slip(command="coordinator export /proc/self/d.parquet --workspace ws", says="/proc/self"),
    Slip(
        command="coordinator export d.parquet --workspace ws",
        says="was not written by a run; delete it",
        prepare=write("ws/plan.json", "[]"),
    ),
    Slip(command="coordinator demo --directory ws", says="was not made by a demo"),
    Slip(command="coordinator demo --directory model.onnx", says="model.onnx"),
    Slip(command="coordinator demo --dataset no.parquet", says="--dataset = 'no.parquet'"),
    Slip(
        command="coordinator demo --directory /proc/self/demo",
        says="/demo: No such",
    ),
]
HEAD = "m,n,k,dtype,layout,family,kernel,runtime_us,device\n"
FOREIGN_TABLES = [
    Slip(
        command="coordinator import t.csv --workspace new",
        says="its cells are separated by semicolons",
        prepare=write("t.csv", "m;n;k;dtype\n1;2;3;fp16\n"),
    ),
    Slip(
        command="coordinator import ms.csv --workspace new",
        says="is the unit right?",
        prepare=write(
            "ms.csv",
            f"{HEAD}4096,4096,4096,fp16,nn,cublas,default,0.2,NVIDIA H100 80GB HBM3\n",
        ),
    ),
    Slip(
        command="coordinator import board.csv --workspace new",
        says="is no GPU whose datasheet is known here",
        prepare=write("board.csv", f"{HEAD}64,64,64,fp16,nn,cublas,default,5,Nobody's GPU\n"),
    ),
    Slip(
        command="coordinator export README.parquet --workspace ws",
        says="would replace a page that is no card of a dataset",
        prepare=write("README.md", "my notes"),
    ),
]
VERSIONS = [
    Slip(command="registry", says="Missing command"),
    Slip(command="registry list", says="holds no registry"),
    Slip(command="registry list --registry model.onnx", says="model.onnx"),
    Slip(command="registry list --registry sqlite:///x", says="neither a directory nor"),
    Slip(command="registry show 9 --workspace ws", says="version = '9': no such version"),
    Slip(command="registry show [/nt] --workspace ws", says="version = '[/nt]': no such version"),
    Slip(command="registry promote --workspace ws", says="Missing argument 'REF'"),
    Slip(command="registry promote 2 --workspace ws", says="version = '2': no such version"),
    Slip(command="registry rollback --workspace ws", says="no "),
    Slip(command="registry export champion ws --workspace ws", says="ws"),
    Slip(command="registry export 1 /proc/self/m.onnx --workspace ws", says="/proc/self"),
    Slip(
        command="registry verify --workspace ws",
        says="damaged",
        prepare=damage("ws/registry/artifacts/*/artifacts/model.onnx"),
    ),
    Slip(
        command="registry list --workspace ws",
        says="mlflow.db can't be read",
        prepare=damage("ws/registry/mlflow.db"),
    ),
]
PREDICT = "gemmcast predict 8 8 8 --model model.onnx --config"
PICK = "gemmcast pick 8 8 8 --model model.onnx"
QUERIES = [
    Slip(command="gemmcast", says="required"),
    Slip(command="gemmcast guess", says="invalid choice"),
    Slip(command="gemmcast predict 8 8", says="required"),
    Slip(command="gemmcast predict a 8 8 --model m --config blas", says="invalid int value: 'a'"),
    Slip(command="gemmcast predict 0 8 8 --model model.onnx --config blas", says="m = 0"),
    Slip(command="gemmcast predict -5 8 8 --model model.onnx --config blas", says="m = -5"),
    Slip(command="gemmcast predict 8 8 8", says="device = None: must be given"),
    Slip(
        command="gemmcast predict 8 8 8 --device h900",
        says="device = 'h900': is no known device; name one of: NVIDIA H100 80GB HBM3, NVIDIA H200",
    ),
    Slip(
        command="gemmcast predict 8 8 8 --device nvidia",
        says="device = 'nvidia': fits several devices; name one of: NVIDIA H100 80GB HBM3, ",
    ),
    Slip(command="gemmcast info --model no.onnx", says="name an .onnx file or a model directory"),
    Slip(command="gemmcast info --model ws", says="has no current.json"),
    Slip(command="gemmcast info --model t.onnx", says="t.onnx", prepare=write("t.onnx", b"\x08")),
    Slip(command=f"{PREDICT} mkl", says="family = 'mkl': unknown kernel family"),
    Slip(command=f"{PREDICT} blas:threads=2", says="can't read 'threads=2'"),
    Slip(command=f"{PREDICT} blas:cpu_threads=two", says="cpu_threads = 'two'"),
    Slip(command=f"{PREDICT} blas:cpu_threads={'9' * 5000}", says="must be a whole number from 0"),
    Slip(command=f"{PREDICT} blas --dtype int4", says="dtype = 'int4': unknown dtype"),
    Slip(command=f"{PREDICT} blas --layout xx", says="layout = 'xx': unknown layout"),
    Slip(command=f"{PREDICT} blas --cache hot", says="cache = 'hot'"),
    Slip(command=f"{PREDICT} blas --beta nan", says="beta = nan: must be finite"),
    Slip(command=f"{PREDICT} blas --batch 0", says="batch = 0"),
    Slip(command=f"{PREDICT} blas --device [h100]", says="device = '[h100]': is no known device"),
    Slip(command=f"{PREDICT} blas --device {'x' * 5000}", says="File name too long"),
    Slip(
        command=f"{PREDICT} blas --device d.json",
        says="not a device description",
        prepare=write("d.json", 100_000 * "["),
    ),
    Slip(
        command=f"{PICK} --configs-file c.json",
        says="there is no configuration to rank",
        prepare=write("c.json", "[]"),
    ),
    Slip(command="gemmcast pick 8 8 --model model.onnx", says="required: k (or --gemms FILE)"),
    Slip(command="gemmcast rank blas --model model.onnx", says="required: n, k"),
    Slip(command="gemmcast rank 8 x 8 --model model.onnx", says="n: invalid int value: 'x'"),
    Slip(command=f"{PICK} --families mkl", says="families = 'mkl': unknown kernel family"),
    Slip(command="gemmcast pick --gemms no.csv --model model.onnx", says="no.csv"),
    Slip(command=f"{PICK} blas --objective speed", says="objective = 'speed'"),
    Slip(command="gemmcast rank 8 8 8 --model model.onnx blas --top 0", says="top = 0"),
    Slip(command=f"{PICK} --configs-file no.json", says="can't be read"),
    Slip(command=f"{PICK} --configs-file ws", says="can't be read"),
    Slip(
        command=f"{PICK} --configs-file c.json",
        says="not a JSON list of configurations",
        prepare=write("c.json", 100_000 * "["),
    ),
    Slip(
        command=f"{PICK} --configs-file c.json",
        says="not a JSON list of configurations",
        prepare=write("c.json", '{"family": "blas"}'),
    ),
    Slip(
        command=f"{PICK} --configs-file c.json",
        says="kernel = 3",
        prepare=write("c.json", '[{"family": "blas", "kernel": 3}]'),
    ),
]
KERNELS = [
    Slip(command="cutlass", says="Missing command"),
    Slip(command="cutlass list", says="Missing option '--arch'"),
    Slip(command="cutlass list --arch h100", says="arch = 'h100'"),
    Slip(command="cutlass list --arch sm_90 --set all", says="set = 'all'"),
    Slip(command="cutlass list --arch sm_80 --set wide", says="only sm_90 has"),
    Slip(command="cutlass list --arch sm_80 --dtype fp8_e4m3", says="has no such kernels"),
    Slip(command="cutlass build --arch sm_90 --jobs 0", says="--jobs"),
    Slip(command="cutlass build --arch sm_90 --nvcc no --headers ws", says="headers"),
]
SCRIPTS = [
    Slip(command="accuracy --table no.parquet", says="no.parquet"),
    Slip(command="accuracy --group colour", says="colour"),
    Slip(command="datasets no.parquet", says="no.parquet"),
    Slip(command="noise_floor a b c", says="name one dataset, or two"),
    Slip(command="noise_floor no.parquet", says="no.parquet"),
    Slip(command="repeatability --share x", says="--share = 'x': must be INDEX/SHARES"),
    Slip(command="repeatability --recorded no.parquet", says="no.parquet"),
    Slip(command="record", says="required: PLAN, --out, --limit-s"),
    Slip(command="record no.toml --out new --limit-s 9", says="PLAN = 'no.toml': can't be read"),
    Slip(
        command="record p.toml --out new --limit-s 9 --second-board 2",
        says="--second-board = 2.0: must be a share from 0 to 1",
        prepare=write("p.toml", PLAN),
    ),
    Slip(
        command="record p.toml --out new --limit-s 9 --skip no.parquet",
        says="no.parquet",
        prepare=write("p.toml", PLAN),
    ),
    Slip(command="predict_latency --workspace no", says="no"),
    Slip(command="paper --out no", says="there is no page no.md"),
    Slip(command="paper --datasets no", says="no"),
]
SLIPS = [
    *RUN,
    *TUNINGS,
    *PLANS,
    *WORKSPACES,
    *TABLES,
    *FOREIGN_TABLES,
    *VERSIONS,
    *QUERIES,
    *KERNELS,
    *SCRIPTS,
]
