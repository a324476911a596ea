/*
 * dsa_kernels: kernels of sparse-attention decoding, in fixed launches that can be captured in CUDA graphs.
 *   - dsa_topk: exact top-k of each row of a batch;
 *   - dsa_compressor: the KV compressor of DeepSeek-V4, which pools windows of tokens into one row each.
 *
 *     dsa_device *device;
 *     dsa_topk *topk;
 *     dsa_topk_config config = {0};
 *     size_t workspace_bytes;
 *     config.size = sizeof config;
 *     config.k = 2048;
 *     config.max_rows = 64;
 *     config.max_len = 131072;
 *     dsa_device_open_cuda(0, &device);
 *     dsa_topk_create(device, &config, &topk);
 *     dsa_topk_workspace_bytes(topk, &workspace_bytes);
 *     dsa_topk_enqueue(topk, scores, pitch, rows, lengths, out, NULL, workspace, workspace_bytes, stream);
 *
 * Result of dsa_topk.  For each row, the min(k, length) largest scores are selected, exactly, for every input:
 *   - out[row * k ..] holds their indices into the row, distinct, then -1 up to k entries;
 *   - NaN ranks below every number, -inf included, and all NaNs are equal; -0.0 equals +0.0;
 *   - which of several equal scores are selected is not defined, unless `ties` says so;
 *   - the order of the indices is not defined, unless `order` says so.
 *
 * Result of dsa_compressor.  See dsa_compress_args.
 *
 * Units.  Sizes named `bytes` are in bytes; pitches, `k`, `max_len` and lengths are in elements.
 *
 * Errors.  Every function but dsa_last_error and dsa_version* returns a dsa_status. After anything else than
 * DSA_OK, dsa_last_error says which argument had which value and what the limit is. Results are written
 * only with DSA_OK. A call that is refused because of its arguments has launched nothing. No call ends the
 * process; a mistake inside the library is reported as DSA_INTERNAL.
 *
 * Threads.  Every function may be called by any thread at any time, except that a handle must not be used
 * while, or after, it is closed or destroyed. Calls with the same operator take turns. Launches of one
 * dsa_topk, replays of graphs included, must not overlap in time on the device: use it on one stream, or one
 * operator for each stream. Launches of different operators may overlap if their workspaces differ.
 *
 * Lifetime.  A device may be closed before the operators that were created on it. Memory that a launch uses
 * (its arguments and the operator itself) must stay valid until the launch has run; if the stream was being
 * captured, until the last replay of the graph.
 *
 * Emulator.  The same kernels run on the CPU, slowly and checked: a wrong address, a race or uninitialised
 * input is reported instead of being undefined. Work runs while it is enqueued. Device pointers must be
 * memory of dsa_buffer_alloc on the same device.
 *
 * C99 and later, C++. Link with -ldsa_kernels; the static library also needs -lpthread -ldl -lm, and -lcuda
 * if it was built with GPU support.
 */
#ifndef DSA_KERNELS_H
#define DSA_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header; dsa_version is that of the library. Before 1.0, use headers and libraries of
 * the same minor version together. */
#define DSA_VERSION_MAJOR 0
#define DSA_VERSION_MINOR 1
#define DSA_VERSION_PATCH 0

/* What a call returns. Later versions may add codes. */
typedef enum dsa_status {
    DSA_OK = 0,
    /* An argument is outside its limits: NULL, misaligned, too large, of another device, ... */
    DSA_INVALID_ARGUMENT = 1,
    /* No such device, no driver, a device that is too old, or a library built without GPU support. */
    DSA_NO_DEVICE = 2,
    /* The device has not enough free memory. */
    DSA_OUT_OF_MEMORY = 3,
    /* workspace_bytes is less than dsa_topk_workspace_bytes says. */
    DSA_WORKSPACE_TOO_SMALL = 4,
    /* The call allocates, copies or waits, which would break the stream capture that is going on. */
    DSA_DURING_CAPTURE = 5,
    /* The driver cannot compile the kernels, or the device runs none of them. */
    DSA_NO_KERNEL = 6,
    /* The driver or the emulator reported an error; a driver may report that of an earlier launch. */
    DSA_DEVICE_FAILED = 7,
    /* A mistake of this library; please report it. */
    DSA_INTERNAL = 8
} dsa_status;

/* The message of the last call on this thread that failed, "" if there was none. NUL-terminated UTF-8.
 * Valid until the next call on this thread that fails, or the thread ends. */
const char *dsa_last_error(void);

/* The version of the library: 10000 * major + 100 * minor + patch, and as text. */
uint32_t dsa_version(void);
const char *dsa_version_string(void);

/* ---- Devices --------------------------------------------------------------------------------------- */

/* A GPU or an emulator. */
typedef struct dsa_device dsa_device;

/* Instead of a device's number: the GPU whose context is current on the calling thread. */
#define DSA_CURRENT_CONTEXT (-1)

/* Opens GPU number `ordinal` (as the driver counts; CUDA_VISIBLE_DEVICES applies), or with
 * DSA_CURRENT_CONTEXT the one whose primary context is current on the calling thread.
 *
 * The device's primary context is used, as by the CUDA runtime: pointers and streams of the runtime and of
 * frameworks that are built on it can be passed. Those of contexts made with cuCtxCreate cannot. The calling
 * thread's current context is left as it was.
 *
 * Fails with DSA_NO_DEVICE, also in a library that was built without GPU support, and with
 * DSA_INVALID_ARGUMENT when no context, or no primary context, is current. */
dsa_status dsa_device_open_cuda(int32_t ordinal, dsa_device **device);

/* Opens an emulator. Each has memory of its own. */
dsa_status dsa_device_open_emulator(dsa_device **device);

/* Closes a device, and frees what dsa_buffer_alloc allocated on it and was not freed. NULL does nothing.
 * Not while a stream of the device is being captured. */
dsa_status dsa_device_close(dsa_device *device);

/* Waits until everything that was enqueued on `stream` (a CUstream or cudaStream_t; NULL is the legacy
 * default stream; NULL on the emulator) has run, and reports errors of its launches. */
dsa_status dsa_stream_synchronize(const dsa_device *device, void *stream);

/* ---- Device memory ---------------------------------------------------------------------------------- */
/* For the emulator, and for programs without an allocator of their own. On a GPU, memory from anywhere can be
 * passed to operators; these copies take memory of dsa_buffer_alloc only.
 *
 * The copies do not wait for streams: synchronise first. They return when the copy is complete. */

/* Allocates `bytes` bytes, aligned to 256, contents undefined. */
dsa_status dsa_buffer_alloc(const dsa_device *device, size_t bytes, void **address);

/* Frees what dsa_buffer_alloc returned, after waiting for launches that use it. NULL does nothing. */
dsa_status dsa_buffer_free(const dsa_device *device, void *address);

/* Copies `bytes` bytes from the host to the device address `destination`, which may lie anywhere in an
 * allocation. */
dsa_status dsa_buffer_upload(const dsa_device *device, void *destination, const void *source, size_t bytes);

/* Copies `bytes` bytes from the device address `source`, which may lie anywhere in an allocation, to the
 * host. */
dsa_status dsa_buffer_download(const dsa_device *device, void *destination, const void *source, size_t bytes);

/* ---- Top-k ------------------------------------------------------------------------------------------ */

/* The type of the scores (and of the values). */
enum dsa_score_type { DSA_SCORES_F32 = 0, DSA_SCORES_F16 = 1, DSA_SCORES_BF16 = 2 };

/* Which of several equal scores are selected when not all of them are. */
enum dsa_ties { DSA_TIES_ANY = 0, DSA_TIES_LOWEST_INDEX = 1 };

/* The order of the indices of an output row. Ascending together with DSA_TIES_LOWEST_INDEX makes the output a
 * function of the scores alone. */
enum dsa_order { DSA_ORDER_ANY = 0, DSA_ORDER_ASCENDING_INDEX = 1 };

/* How rows are selected. The others than DSA_PATH_AUTO are for study; rows of at most k elements are always
 * trivial. */
enum dsa_path {
    DSA_PATH_AUTO = 0,     /* the fastest for each row's own length, decided on the device */
    DSA_PATH_TRIVIAL = 1,  /* max_len <= k */
    DSA_PATH_RESIDENT = 2, /* max_len <= 16377: one block, the row in registers */
    DSA_PATH_SAMPLED = 3,  /* any length: the row read once, against a threshold from a sample */
    DSA_PATH_DECODE = 4,   /* max_len <= 8192: vLLM's, one block, the row in registers */
    DSA_PATH_MEDIUM = 5,   /* any length: vLLM's, one block, the row read twice */
    DSA_PATH_LARGE = 6,    /* any length: vLLM's, several blocks per row; needs cooperative launches */
    DSA_PATH_CLUSTER = 7   /* any length: a cluster of blocks per row, in registers; compute capability 9.0 */
};

/* What an operator is created for. Zero the whole struct (`= {0}`, memset), then set `size` and what is
 * needed: in every field but the first four, zero is the default. Later versions add fields at the end; a
 * library takes the structs of earlier headers, and those of later ones whose new fields are zero. */
typedef struct dsa_topk_config {
    uint32_t size;           /* sizeof(dsa_topk_config) */
    uint32_t k;              /* elements wanted of each row, 1..=4096 */
    uint32_t max_rows;       /* most rows of a launch, 1..=2147483647 */
    uint32_t max_len;        /* longest valid prefix of a row, 1..=2147483647; longer lengths are clamped */
    uint32_t next_n;         /* rows per sequence; 0 is 1. See `lengths` of dsa_topk_enqueue */
    uint32_t compress_ratio; /* what lengths are divided by, rounding down; 0 is 1 */
    uint32_t score_type;     /* enum dsa_score_type */
    uint32_t ties;           /* enum dsa_ties */
    uint32_t order;          /* enum dsa_order */
    uint32_t values;         /* 1: launches also write the selected scores */
    uint32_t path;           /* enum dsa_path */
    uint32_t max_sms;        /* most multiprocessors that a launch may take; 0 is all */
    uint32_t no_overlap;     /* 1: launches start only when the launch before them has ended. With 0, on devices
                              * and drivers that can, they start while it is still running, and wait for its
                              * end before they touch device memory. Kernels of others that are launched with
                              * programmatic serialization on the same stream must wait, too
                              * (griddepcontrol.wait) */
} dsa_topk_config;

/* An operator. It owns device memory, 256 bytes to a few megabytes, that every launch leaves zero. */
typedef struct dsa_topk dsa_topk;

/* Checks the limits, compiles the kernels (the first operator of a device only) and allocates. Blocks; not
 * while a stream is being captured. Options that the kernels do not have for these limits are refused with
 * DSA_INVALID_ARGUMENT. */
dsa_status dsa_topk_create(const dsa_device *device, const dsa_topk_config *config, dsa_topk **topk);

/* Frees an operator, after waiting for its launches. NULL does nothing. Graphs that captured its launches
 * must not be replayed afterwards. */
dsa_status dsa_topk_destroy(dsa_topk *topk);

/* Bytes of workspace that dsa_topk_enqueue asks for: fixed for an operator, possibly 0. */
dsa_status dsa_topk_workspace_bytes(const dsa_topk *topk, size_t *bytes);

/* Enqueues the selection on `stream`. Neither allocates device memory nor waits; can be captured. The shape
 * of the launch depends on `rows` alone: a captured launch stays right when lengths and scores change.
 *
 *   scores           device memory, [rows, pitch] of the operator's type, aligned to an element (to 16 bytes
 *                    is faster). Of every row, max_len elements must be readable memory; those behind its
 *                    length may have any contents, and none is selected.
 *   pitch            elements from one row to the next, at least max_len.
 *   rows             0..=max_rows, a multiple of next_n. With 0, nothing is launched, and addresses may be
 *                    NULL.
 *   lengths          device memory, int32_t[rows / next_n], aligned to 4 bytes. Below 1 is an empty row,
 *                    above max_len is clamped. With next_n or compress_ratio above 1, row s * next_n + j has
 *                    (lengths[s] - next_n + 1 + j) / compress_ratio elements.
 *   out              device memory, int32_t[rows, k], aligned to 4 bytes. Overlaps no input.
 *   values           device memory, [rows, k] of the scores' type, aligned to an element: value j of a row is
 *                    the score at index j of its output; what is behind the last index is not defined. NULL
 *                    unless the operator was created with `values`.
 *   workspace        device memory of workspace_bytes bytes, aligned to 256, contents undefined before and
 *                    after. May serve any operators whose launches do not overlap in time. NULL with 0 bytes.
 *   workspace_bytes  at least what dsa_topk_workspace_bytes says; less is DSA_WORKSPACE_TOO_SMALL.
 *   stream           CUstream or cudaStream_t of the device's primary context. NULL is the legacy default
 *                    stream; on the emulator it must be NULL.
 */
dsa_status dsa_topk_enqueue(dsa_topk *topk, const void *scores, uint64_t pitch, uint32_t rows,
                            const int32_t *lengths, int32_t *out, void *values, void *workspace,
                            size_t workspace_bytes, void *stream);

/* ---- The compressor --------------------------------------------------------------------------------- */

/* The type of numbers. The default depends on the field. */
enum dsa_number_type { DSA_NUMBER_DEFAULT = 0, DSA_NUMBER_F32 = 1, DSA_NUMBER_BF16 = 2 };

/* How rows are stored in the cache. */
enum dsa_store {
    DSA_STORE_BF16 = 0,           /* bf16, rounded to nearest even */
    DSA_STORE_FP8_PER_TENSOR = 1, /* FP8 e4m3, divided by one scale for all rows, which is read */
    DSA_STORE_FP8_PER_GROUP = 2   /* FP8 e4m3, each 128 channels divided by a scale of their own, which is written */
};

/* Why requests were left out: bits of dsa_report. Later versions may add some. */
enum dsa_reason {
    DSA_REASON_LENGTH = 1,   /* a length below the number of new tokens, or beyond the table of pages */
    DSA_REASON_PAGE = 2,     /* a page that is not in its pool */
    DSA_REASON_TOKENS = 4,   /* new tokens that are not in kv_score, or too many of them */
    DSA_REASON_OUTPUT = 8,   /* output rows that are not in the output */
    DSA_REASON_POSITION = 16 /* a position beyond the table of rotations */
};

/* What a compressor is created for; as dsa_topk_config, zero is the default in every field but the first
 * three. The kernels are compiled for combinations of ratio, head_dim, types and warps; others are refused
 * with a message that lists them. */
typedef struct dsa_compressor_config {
    uint32_t size;        /* sizeof(dsa_compressor_config) */
    uint32_t ratio;       /* tokens of a window: 128, or 4 with windows that overlap */
    uint32_t head_dim;    /* channels of an output row: 128 or 512 */
    uint32_t kv_type;     /* enum dsa_number_type of the rows of new tokens; bf16 by default */
    uint32_t state_type;  /* enum dsa_number_type of the state, both pools; f32 by default */
    uint32_t output_type; /* enum dsa_number_type of the output; bf16 by default */
    uint32_t warps;       /* warps of a block of the decode kernel; 0 is the best. For study */
    uint32_t running;     /* 1: the state are running softmaxes, so that a step of decode costs what its tokens
                           * cost, not what a window costs. Needs a state of f32. A prefill then walks the tokens of
                           * a request one after the other: its time is proportional to those of the longest one.
                           * A state written without this cannot be continued with it, nor the other way round */
    uint32_t max_batch;   /* most requests of a launch; 0 is 4096 */
    uint32_t no_overlap;  /* as of dsa_topk_config */
} dsa_compressor_config;

/* Paged memory: entry t of request b lies in page blocks[b][t / page], row t % page, of the pool. Pages of
 * which none is needed may have any number; one that is needed and is not in the pool makes its request a bad
 * one. */
typedef struct dsa_pages {
    void *pool;            /* device memory, [pages, page, columns], aligned to 16 bytes */
    uint64_t pitch;        /* elements from one page to the next, a multiple of 16 bytes; 0 is page * columns */
    const int32_t *blocks; /* device memory, int32_t[batch, max_blocks], aligned to 4 bytes */
    uint64_t blocks_pitch; /* elements from one row of blocks to the next; 0 is max_blocks */
    uint32_t pages;        /* physical pages, at least 1 */
    uint32_t page;         /* entries of a page, at least 1 */
    uint32_t max_blocks;   /* logical pages of a request, at least 1 */
} dsa_pages;

/* The arguments of a compression. Zero the whole struct, then set `size` and the rest.
 *
 * The row of a new token is [kv (W) | score (W)] with W = head_dim for windows of 128 tokens and
 * W = 2 * head_dim for windows of 4; s = score + ape[t % ratio] for the token at position t. When the last
 * token of window c is there, the window's row is written to the output, once: for each channel d, with
 * the softmax over the positions of the window,
 *   - ratio 128: out[c][d] = sum over r of softmax(s[128 c + r][d]) * kv[128 c + r][d];
 *   - ratio 4: the same over eight entries: positions 4 c - 4 .. 4 c - 1 with columns 0 .. head_dim - 1, then
 *     4 c .. 4 c + 3 with columns head_dim .. W - 1. Window 0 has the second half only.
 * kv and s of every new token are kept in the two pools, by its position: a launch that starts at an earlier
 * length than the last one ended at overwrites what it finds, which is how rejected draft tokens are undone.
 *
 * Arrays are in device memory, those of int32_t aligned to 4 bytes, others to 16; their pitches are multiples
 * of 16 bytes. Those that are written (pools, output) overlap nothing else, and no two requests share a page
 * that new tokens are written to. Lengths, offsets and pages may have any contents: a request with a bad one
 * is left out whole and reported, the others are compressed. */
typedef struct dsa_compress_args {
    uint32_t size;           /* sizeof(dsa_compress_args) */
    uint32_t batch;          /* requests, 0..=max_batch; with 0, nothing is launched, and addresses may be NULL */
    uint32_t tokens;         /* rows of kv_score, 0..=2147483647 */
    uint32_t rows;           /* rows of output, 0..=2147483647 */
    const void *kv_score;    /* [tokens, 2 W] of kv_type: all new tokens, one request after the other */
    uint64_t kv_score_pitch; /* elements from one row to the next; 0 is 2 W */
    const float *ape;        /* float[ratio, W]: the bias on the score by the position in the window */
    dsa_pages kv;            /* the first half of the state, W columns of state_type */
    dsa_pages score;         /* the second half, with the same page and max_blocks */
    const int32_t *kv_lens;  /* int32_t[batch]: the length of each request after the new tokens */
    const int32_t *cu_new;   /* int32_t[batch + 1]: the first new token of each request, then the number of all */
    const int32_t *cu_out;   /* int32_t[batch + 1]: the first output row of each, then the number of all. Of n new
                              * tokens and a length len, len / ratio - (len - n) / ratio rows are written */
    void *output;            /* [rows, head_dim] of output_type */
    uint64_t output_pitch;   /* elements from one row to the next; 0 is head_dim */
} dsa_compress_args;

/* The arguments of what comes after a compression of the same requests: the rows that it wrote are
 * normalised (RMS), their last 64 channels rotated, and stored in a paged cache, in which the row of window c
 * of a request is entry c. Zero the whole struct, then set `size` and the rest. */
typedef struct dsa_post_args {
    uint32_t size;             /* sizeof(dsa_post_args) */
    uint32_t batch;            /* requests, as for the compression */
    uint32_t rows;             /* rows of compressed; with 0, nothing is launched, and addresses may be NULL */
    uint32_t positions;        /* rows of rotations */
    uint32_t store;            /* enum dsa_store */
    uint32_t hadamard;         /* 1: a Walsh-Hadamard transform, times head_dim^-1/2, comes before the storing */
    float epsilon;             /* what is added to the mean square of a row, at least 0 */
    const void *compressed;    /* [rows, head_dim] of output_type: the output of the compression */
    uint64_t compressed_pitch; /* elements from one row to the next; 0 is head_dim */
    const float *weight;       /* float[head_dim]: what normalised channels are multiplied by */
    const float *rotations;    /* float[positions, 64]: for each position, 32 cosines, then 32 sines */
    dsa_pages cache;           /* head_dim columns of bf16 or FP8, as `store` says */
    const float *scale;        /* float[1], aligned to 4 bytes, for DSA_STORE_FP8_PER_TENSOR; else NULL */
    float *scales;             /* float[cache.pages, cache.page, head_dim / 128], aligned to 4 bytes, for
                                * DSA_STORE_FP8_PER_GROUP; else NULL */
    uint64_t scales_pitch;     /* elements from one page to the next; 0 is cache.page * (head_dim / 128) */
    const int32_t *kv_lens;    /* these three as for the compression */
    const int32_t *cu_new;
    const int32_t *cu_out;
} dsa_post_args;

/* What launches left out. */
typedef struct dsa_report {
    uint32_t reasons;       /* bits of enum dsa_reason, of all requests that were left out; 0 if none was */
    uint32_t first_request; /* the lowest of them; 0 if there is none */
} dsa_report;

/* A compressor. It owns the device memory that launches report and count in: its launches may overlap in time if
 * they write different memory otherwise, but for two of dsa_compressor_enqueue_decode_store. */
typedef struct dsa_compressor dsa_compressor;

/* Checks the limits, compiles the kernels (the first compressor of a device only) and allocates. Blocks; not
 * while a stream is being captured. */
dsa_status dsa_compressor_create(const dsa_device *device, const dsa_compressor_config *config,
                                 dsa_compressor **compressor);

/* Frees a compressor, after waiting for its launches. NULL does nothing. Graphs that captured its launches
 * must not be replayed afterwards. */
dsa_status dsa_compressor_destroy(dsa_compressor *compressor);

/* Enqueues the compression of up to `next_n` new tokens of each request, 1..=8, on `stream` (as of
 * dsa_topk_enqueue). How many a request has is what cu_new says. Neither allocates device memory nor waits; can
 * be captured: the shape of the launch depends on `batch` alone. */
dsa_status dsa_compressor_enqueue_decode(dsa_compressor *compressor, uint32_t next_n, const dsa_compress_args *args,
                                         void *stream);

/* dsa_compressor_enqueue_decode, then dsa_compressor_enqueue_post of the same requests and rows (`compressed` is the
 * output, and kv_lens, cu_new and cu_out are the same arrays): in one launch, which is faster, or, with running softmaxes
 * and a set number of warps, in two. The results are the same to the bit. Two such launches of one compressor must not
 * run at the same time. */
dsa_status dsa_compressor_enqueue_decode_store(dsa_compressor *compressor, uint32_t next_n, const dsa_compress_args *args,
                                               const dsa_post_args *post, void *stream);

/* dsa_compressor_enqueue_decode for any number of new tokens of each request. The shape of the launch depends on `batch` and
 * `tokens` alone. */
dsa_status dsa_compressor_enqueue_prefill(dsa_compressor *compressor, const dsa_compress_args *args, void *stream);

/* Enqueues what comes after a compression. Neither allocates device memory nor waits; can be captured: the
 * shape of the launch depends on `rows` alone. */
dsa_status dsa_compressor_enqueue_post(dsa_compressor *compressor, const dsa_post_args *args, void *stream);

/* Reads what launches reported since the last call, and clears it. Waits for no stream: synchronise first. Not
 * while a stream is being captured. */
dsa_status dsa_compressor_take_report(dsa_compressor *compressor, dsa_report *report);

#ifdef __cplusplus
}
#endif

#endif
