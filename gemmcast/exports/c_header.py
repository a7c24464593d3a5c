"""A table as a C header, for programs that choose kernels at run time without Python or JSON.

    #include "gemmcast_nvidia_h200_time.h"
    const gemmcast_tuned *entry = gemmcast_tuned_find(
        gemmcast_nvidia_h200_time, GEMMCAST_NVIDIA_H200_TIME_COUNT, 16, 4096, 4096, 1,
        "bf16", "nt", "");

C99 and C++11; no library. A header holds one table; several may be included together. The look-up
finds exact problems only, and gives NULL for others.
"""

from __future__ import annotations

from typing import Final

from gemmcast.config import KNOBS, KernelConfig
from gemmcast.exports.export import Export, ExportOptions, LeftOut, chosen, file_stem
from gemmcast.tuned_entry import TunedEntry
from gemmcast.tuned_table import TunedTable

SIZES: Final = ("m", "n", "k", "batch")
KEY_LINES: Final = ("device", "objective", "driver", "cuda", "library", "kernel_set", "triton")
"""Fields of the table's key that the head comment has."""
TYPES: Final = """\
#ifndef GEMMCAST_TUNED_TYPES
#define GEMMCAST_TUNED_TYPES
#include <stddef.h>
#include <string.h>
/* What to run for C = alpha * A * B + beta * C; A is m x k, B is k x n. A knob that is 0 is unknown
   or does not exist. `gain` is the cost of the default over the cost of this configuration. */
typedef struct gemmcast_tuned {
    long m, n, k, batch;
    const char *dtype, *layout;
    double alpha, beta;
    /* empty for a plain product, else the Triton kernel: scaled_block, grouped */
    const char *operation;
    const char *family, *kernel;
    long KNOBS;
    double gain;
} gemmcast_tuned;

/* The entry of exactly this problem, with alpha = 1 and beta = 0; NULL where there is none. */
static inline const gemmcast_tuned *gemmcast_tuned_find(
    const gemmcast_tuned *entries, size_t count, long m, long n, long k, long batch,
    const char *dtype, const char *layout, const char *operation) {
    size_t i;
    for (i = 0; i < count; ++i) {
        const gemmcast_tuned *e = entries + i;
        if (e->m == m && e->n == n && e->k == k && e->batch == batch && e->alpha == 1.0 &&
            e->beta == 0.0 && !strcmp(e->dtype, dtype) && !strcmp(e->layout, layout) &&
            !strcmp(e->operation, operation))
            return e;
    }
    return NULL;
}
#endif
""".replace("KNOBS", ", ".join(KNOBS))


def c_header(table: TunedTable, _options: ExportOptions) -> Export:
    """One header."""
    if not table.entries:
        raise LeftOut().nothing_left(table, "C has no empty arrays: tune at least one GEMM")
    name = f"gemmcast_{file_stem(table)}"
    macro = name.upper()
    lines = [*_head(table), f"#ifndef {macro}_H", f"#define {macro}_H", "", TYPES]
    lines += [f"#define {macro}_COUNT {len(table.entries)}"]
    lines += [f"static const gemmcast_tuned {name}[{macro}_COUNT] = {{"]
    lines += [_row(entry) for entry in table.entries]
    lines += ["};", "", "#endif", ""]
    return Export(files={f"{name}.h": "\n".join(lines)})


def c_string(text: str) -> str:
    """A text as a C string literal, in ASCII."""
    letters = []
    for byte in text.encode():
        # A question mark could begin a trigraph
        is_plain = 0x20 <= byte < 0x7F and byte not in b'"\\?'
        letters.append(chr(byte) if is_plain else f"\\{byte:03o}")
    return f'"{"".join(letters)}"'


def _head(table: TunedTable) -> list[str]:
    """The comment at the top: what the table holds for."""
    lines = ["/* Tuned by gemmcast. Use it only where all of this is so:"]
    for field in KEY_LINES:
        value = getattr(table.key, field)
        if value is not None:
            # A name must not end the comment
            lines.append(f"   {field}: {c_string(str(value)).replace('*/', '* /')}")
    return [*lines, "*/"]


def _row(entry: TunedEntry) -> str:
    """One initialiser, its fields in the order of the struct."""
    gemm, config = entry.gemm, chosen(entry)
    sizes = [str(getattr(gemm, size)) for size in SIZES]
    formats = [c_string(gemm.dtype), c_string(gemm.layout), repr(gemm.alpha), repr(gemm.beta)]
    kernel = [c_string(text) for text in (entry.operation, config.family, config.kernel)]
    fields = [*sizes, *formats, *kernel, *_knobs(config), repr(_gain(entry))]
    return f"    {{{', '.join(fields)}}},"


def _knobs(config: KernelConfig) -> list[str]:
    return [str(getattr(config, knob)) for knob in KNOBS]


def _gain(entry: TunedEntry) -> float:
    """Of what is chosen: 1 where the default stands."""
    return entry.gain if chosen(entry) == entry.winner else 1.0
