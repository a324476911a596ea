/*
 * The one function that a shared library must export to be timed beside this project's top-k:
 *
 *     cargo xtask bench -- --compare NAME=libtheirs.so
 *
 * For every cell of the benchmark it is called once to launch, the answer is checked, and then it is called
 * while the stream is being captured, to put chains of launches into CUDA graphs, as is done with this
 * project's operator: both read the same scores and lengths, in the same run.
 */
#ifndef DSA_BENCH_TOPK_H
#define DSA_BENCH_TOPK_H

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of `scratch`. */
#define BENCH_TOPK_SCRATCH_BYTES (64 << 20)

/*
 * Enqueues one selection of the k largest scores of each row on `stream`, and does not wait for it.
 *
 *   scores   device memory, float[rows, pitch], standard normal or worse: ties are frequent in some cells.
 *            Aligned to 16 bytes. Nothing behind a row's length is a score.
 *   lengths  device memory, int[rows]: scores of each row, 1..=max_len. Rows may be much shorter than max_len.
 *   out      device memory, int[rows, k]: the function writes the distinct indices of the min(k, length)
 *            largest scores of each row, in any order, then -1 up to k entries.
 *   scratch  device memory of BENCH_TOPK_SCRATCH_BYTES bytes, aligned to 256 bytes. It is zeroed before each
 *            cell, and not between the launches of a cell. Nothing else uses it.
 *   rows     number of rows.
 *   pitch    scores from one row to the next, at least max_len.
 *   k        scores to select from each row.
 *   max_len  no length is larger.
 *   stream   a CUstream or cudaStream_t of the primary context of device 0. That context need not be current
 *            on the calling thread, which the CUDA runtime does not mind. While the stream is being captured
 *            (thread-local mode), nothing may be allocated or waited for.
 *
 * Returns 0 when it has launched. Any other value says that this shape is not supported, or what failed; the
 * benchmark shows it for the cell and goes on.
 */
int bench_topk(const float *scores, const int *lengths, int *out, void *scratch, int rows, int pitch, int k,
               int max_len, void *stream);

#ifdef __cplusplus
}
#endif

#endif
