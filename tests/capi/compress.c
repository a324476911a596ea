/*
 * The compressor through the C ABI, used as a C program uses it: windows whose result is plain are compressed
 * and stored, and errors that a caller can make are made.
 *
 *     compress_c [emulator|gpu]
 *
 * Exit status: 0 when every check passed, 1 when one did not.
 */
#define PROGRAM "compress"
#include "check.h"

#include <math.h>

/* Two requests, pages of 8 tokens. The first has pages 3 and 1 of the kv pool and 0 and 2 of the score pool. */
enum { BATCH = 2, PAGES = 4, PAGE = 8, MAX_BLOCKS = 2, WIDEST = 256, HEAD_DIM = 128, ROWS = 3, TOKENS = 8 };

static const int32_t KV_BLOCKS[BATCH * MAX_BLOCKS] = {3, 1, 0, 2};
static const int32_t SCORE_BLOCKS[BATCH * MAX_BLOCKS] = {0, 2, 3, 1};

static dsa_compressor_config config_of(uint32_t ratio, uint32_t head_dim) {
    dsa_compressor_config config;
    memset(&config, 0, sizeof config);
    config.size = sizeof config;
    config.ratio = ratio;
    config.head_dim = head_dim;
    return config;
}

static float from_bf16(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float number;
    memcpy(&number, &bits, 4);
    return number;
}

/* The bits of a number that bf16 has. */
static uint16_t to_bf16(float number) {
    uint32_t bits;
    memcpy(&bits, &number, 4);
    return (uint16_t)(bits >> 16);
}

/* The arguments of a compression, and their memory. */
typedef struct {
    dsa_compress_args args;
    void *memory[10];
    size_t count;
} Batch;

static void *keep(Batch *batch, void *address) {
    batch->memory[batch->count++] = address;
    return address;
}

/* A batch of TOKENS new tokens, divided as `cu_new` says, of lengths `kv_lens` after them, windows of 4. Channels
 * of all tokens are kv = 0.75, with scores that differ; tokens are bf16 or f32. */
static Batch batch_of(int tokens_are_f32, const int32_t *kv_lens, const int32_t *cu_new, const int32_t *cu_out,
                      size_t output_bytes) {
    static float tokens[TOKENS * 2 * WIDEST], ape[4 * WIDEST];
    static uint16_t halves[TOKENS * 2 * WIDEST];
    size_t pool = (size_t)PAGES * PAGE * WIDEST * sizeof(float), i;
    Batch batch;
    memset(&batch, 0, sizeof batch);
    for (i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        int is_kv = i % (2 * WIDEST) < WIDEST;
        tokens[i] = is_kv ? 0.75f : (float)(i * 37 % 16) * 0.25f - 2.0f;
        halves[i] = to_bf16(tokens[i]);
    }
    for (i = 0; i < sizeof ape / sizeof *ape; i++)
        ape[i] = (float)(i % 5) * 0.1f;
    batch.args.size = sizeof batch.args;
    batch.args.batch = BATCH;
    batch.args.tokens = TOKENS;
    batch.args.rows = ROWS;
    batch.args.kv_score =
        keep(&batch, tokens_are_f32 ? upload(tokens, sizeof tokens) : upload(halves, sizeof halves));
    batch.args.ape = keep(&batch, upload(ape, sizeof ape));
    batch.args.kv.pool = keep(&batch, poisoned(pool));
    batch.args.kv.blocks = keep(&batch, upload(KV_BLOCKS, sizeof KV_BLOCKS));
    batch.args.score.pool = keep(&batch, poisoned(pool));
    batch.args.score.blocks = keep(&batch, upload(SCORE_BLOCKS, sizeof SCORE_BLOCKS));
    batch.args.kv.pages = batch.args.score.pages = PAGES;
    batch.args.kv.page = batch.args.score.page = PAGE;
    batch.args.kv.max_blocks = batch.args.score.max_blocks = MAX_BLOCKS;
    batch.args.kv_lens = keep(&batch, upload(kv_lens, BATCH * sizeof *kv_lens));
    batch.args.cu_new = keep(&batch, upload(cu_new, (BATCH + 1) * sizeof *cu_new));
    batch.args.cu_out = keep(&batch, upload(cu_out, (BATCH + 1) * sizeof *cu_out));
    batch.args.output = keep(&batch, poisoned(output_bytes));
    return batch;
}

static void free_batch(Batch *batch) {
    size_t i;
    for (i = 0; i < batch->count; i++)
        OK(dsa_buffer_free(device, batch->memory[i]));
}

/* Whether every number of a row is `wanted`, but for what sums of a softmax are off. */
static int row_is(const float *row, float wanted) {
    int i;
    for (i = 0; i < HEAD_DIM; i++)
        if (!(fabsf(row[i] - wanted) <= 1e-5f))
            return 0;
    return 1;
}

static int is_poison(const void *row, size_t bytes) {
    const unsigned char *byte = row;
    while (bytes-- > 0)
        if (*byte++ != 0x5a)
            return 0;
    return 1;
}

static void no_report(dsa_compressor *compressor) {
    dsa_report report = {7, 7};
    OK(dsa_stream_synchronize(device, NULL));
    OK(dsa_compressor_take_report(compressor, &report));
    CHECK(report.reasons == 0);
    CHECK(report.first_request == 0);
}

/* ---- Results ----------------------------------------------------------------------------------------- */

/* Windows of equal kv give that kv: the first request closes its window 0, the second none. */
static void compresses(int prefill, int running) {
    static const int32_t kv_lens[BATCH] = {5, 3}, cu_new[BATCH + 1] = {0, 5, TOKENS}, cu_out[BATCH + 1] = {1, 2, 2};
    float output[ROWS * HEAD_DIM], state[PAGES * PAGE * WIDEST];
    Batch batch = batch_of(1, kv_lens, cu_new, cu_out, sizeof output);
    dsa_compressor_config config = config_of(4, HEAD_DIM);
    dsa_compressor *compressor = NULL;
    config.kv_type = config.output_type = DSA_NUMBER_F32;
    config.running = (uint32_t)running;
    config.max_batch = BATCH;
    OK(dsa_compressor_create(device, &config, &compressor));
    if (prefill)
        OK(dsa_compressor_enqueue_prefill(compressor, &batch.args, NULL));
    else
        OK(dsa_compressor_enqueue_decode(compressor, 5, &batch.args, NULL));
    no_report(compressor);
    OK(dsa_buffer_download(device, output, batch.args.output, sizeof output));
    CHECK(is_poison(output, HEAD_DIM * sizeof *output));
    CHECK(row_is(output + HEAD_DIM, 0.75f));
    CHECK(is_poison(output + 2 * HEAD_DIM, HEAD_DIM * sizeof *output));
    if (!running) {
        OK(dsa_buffer_download(device, state, batch.args.kv.pool, sizeof state));
        CHECK(state[3 * PAGE * WIDEST] == 0.75f);                       /* request 0, token 0 */
        CHECK(state[(3 * PAGE + 5) * WIDEST - 1] == 0.75f);             /* token 4 */
        CHECK(is_poison(&state[(3 * PAGE + 5) * WIDEST], 3 * WIDEST * 4)); /* behind it */
        CHECK(state[2 * WIDEST] == 0.75f);                              /* request 1, token 2 */
    }
    OK(dsa_compressor_destroy(compressor));
    free_batch(&batch);
}

/* The same with bf16 everywhere, from a later start: the second window of the first request, then stored: 0.75 is
 * normalised to 1, and not rotated. */
static void compresses_and_stores(uint32_t store) {
    static const int32_t first_lens[BATCH] = {4, 4}, lens[BATCH] = {8, 6};
    static const int32_t cu_new[BATCH + 1] = {0, 4, TOKENS}, cu_out[BATCH + 1] = {2, ROWS, ROWS};
    static const int32_t cache_blocks[BATCH] = {1, 0};
    static float rotations[16 * 64], weight[HEAD_DIM];
    enum { CACHE_ROWS = 2 * 4 };
    float scale = 0.5f, scales[CACHE_ROWS];
    uint16_t output[ROWS * HEAD_DIM], cache[CACHE_ROWS * HEAD_DIM];
    const uint16_t *row = cache + (4 + 1) * HEAD_DIM; /* page 1, window 1 */
    const unsigned char *bytes = (const unsigned char *)cache + (4 + 1) * HEAD_DIM;
    size_t element = store == DSA_STORE_BF16 ? 2 : 1, i, right = 0;
    int launches;
    int32_t first_out[BATCH + 1] = {0, 1, 2};
    Batch batch = batch_of(0, first_lens, cu_new, first_out, sizeof output);
    dsa_compressor_config config = config_of(4, HEAD_DIM);
    dsa_compressor *compressor = NULL;
    dsa_post_args post;
    config.state_type = DSA_NUMBER_BF16;
    for (i = 0; i < 16 * 64; i++)
        rotations[i] = i % 64 < 32 ? 1.0f : 0.0f;
    for (i = 0; i < HEAD_DIM; i++)
        weight[i] = 1.0f;
    OK(dsa_compressor_create(device, &config, &compressor));
    OK(dsa_compressor_enqueue_decode(compressor, 4, &batch.args, NULL));
    no_report(compressor);
    OK(dsa_buffer_upload(device, (void *)batch.args.output, memset(output, 0x5a, sizeof output), sizeof output));
    OK(dsa_buffer_upload(device, (void *)batch.args.kv_lens, lens, sizeof lens));
    OK(dsa_buffer_upload(device, (void *)batch.args.cu_out, cu_out, sizeof cu_out));
    /* The second request now has two new tokens: the rows of the others are nobody's. */
    first_out[0] = 0;
    first_out[1] = 4;
    first_out[2] = 6;
    OK(dsa_buffer_upload(device, (void *)batch.args.cu_new, first_out, sizeof first_out));
    OK(dsa_compressor_enqueue_decode(compressor, 4, &batch.args, NULL));
    no_report(compressor);
    OK(dsa_buffer_download(device, output, batch.args.output, sizeof output));
    CHECK(is_poison(output, 2 * HEAD_DIM * sizeof *output));
    for (i = 0; i < HEAD_DIM; i++)
        right += fabsf(from_bf16(output[2 * HEAD_DIM + i]) - 0.75f) < 0.01f;
    CHECK(right == HEAD_DIM);

    memset(&post, 0, sizeof post);
    post.size = sizeof post;
    post.batch = BATCH;
    post.rows = ROWS;
    post.positions = 16;
    post.store = store;
    post.epsilon = 1e-6f;
    post.compressed = batch.args.output;
    post.weight = upload(weight, sizeof weight);
    post.rotations = upload(rotations, sizeof rotations);
    post.cache.pool = poisoned(CACHE_ROWS * HEAD_DIM * element);
    post.cache.blocks = upload(cache_blocks, sizeof cache_blocks);
    post.cache.pages = 2;
    post.cache.page = 4;
    post.cache.max_blocks = 1;
    post.scale = store == DSA_STORE_FP8_PER_TENSOR ? upload(&scale, sizeof scale) : NULL;
    post.scales = store == DSA_STORE_FP8_PER_GROUP ? poisoned(sizeof scales) : NULL;
    post.kv_lens = batch.args.kv_lens;
    post.cu_new = batch.args.cu_new;
    post.cu_out = batch.args.cu_out;
    /* Behind the decode above, then once more in one launch with it. */
    for (launches = 2; launches > 0; launches--) {
        if (launches == 2) {
            OK(dsa_compressor_enqueue_post(compressor, &post, NULL));
        } else {
            memset(cache, 0x5a, sizeof cache);
            OK(dsa_buffer_upload(device, post.cache.pool, cache, CACHE_ROWS * HEAD_DIM * element));
            OK(dsa_compressor_enqueue_decode_store(compressor, 4, &batch.args, &post, NULL));
        }
        no_report(compressor);
        OK(dsa_buffer_download(device, cache, post.cache.pool, CACHE_ROWS * HEAD_DIM * element));
        CHECK(is_poison(cache, (4 + 1) * HEAD_DIM * element));
        CHECK(is_poison((const char *)cache + (4 + 2) * HEAD_DIM * element, 2 * HEAD_DIM * element));
        for (i = 0, right = 0; i < HEAD_DIM; i++) {
            if (store == DSA_STORE_BF16)
                right += fabsf(from_bf16(row[i]) - 1.0f) < 0.01f;
            else if (store == DSA_STORE_FP8_PER_TENSOR)
                right += bytes[i] == 0x40; /* 1 divided by 0.5 is 2 */
            else
                right += bytes[i] == bytes[0] && bytes[i] >= 0x70 && bytes[i] <= 0x7e; /* near the largest, 448 */
        }
        CHECK(right == HEAD_DIM);
        if (store == DSA_STORE_FP8_PER_GROUP) {
            OK(dsa_buffer_download(device, scales, post.scales, sizeof scales));
            CHECK(scales[4 + 1] > 0.0f && scales[4 + 1] < 0.01f);
            CHECK(is_poison(scales, (4 + 1) * sizeof *scales));
        }
    }
    OK(dsa_buffer_free(device, (void *)post.weight));
    OK(dsa_buffer_free(device, (void *)post.rotations));
    OK(dsa_buffer_free(device, post.cache.pool));
    OK(dsa_buffer_free(device, (void *)post.cache.blocks));
    OK(dsa_buffer_free(device, (void *)post.scale));
    OK(dsa_buffer_free(device, post.scales));
    OK(dsa_compressor_destroy(compressor));
    free_batch(&batch);
}

/* A request with a bad page is left out and reported once; the other is compressed. */
static void reports_bad_requests(void) {
    static const int32_t kv_lens[BATCH] = {4, 4}, cu_new[BATCH + 1] = {0, 4, 8}, cu_out[BATCH + 1] = {0, 1, 2};
    static const int32_t bad_blocks[BATCH * MAX_BLOCKS] = {3, 1, -1, 2};
    float output[ROWS * HEAD_DIM];
    Batch batch = batch_of(1, kv_lens, cu_new, cu_out, sizeof output);
    dsa_compressor_config config = config_of(4, HEAD_DIM);
    dsa_compressor *compressor = NULL;
    dsa_report report = {0, 0};
    config.kv_type = config.output_type = DSA_NUMBER_F32;
    OK(dsa_compressor_create(device, &config, &compressor));
    OK(dsa_buffer_upload(device, (void *)batch.args.kv.blocks, bad_blocks, sizeof bad_blocks));
    OK(dsa_compressor_enqueue_decode(compressor, 4, &batch.args, NULL));
    OK(dsa_stream_synchronize(device, NULL));
    OK(dsa_compressor_take_report(compressor, &report));
    CHECK(report.reasons == DSA_REASON_PAGE);
    CHECK(report.first_request == 1);
    no_report(compressor);
    OK(dsa_buffer_download(device, output, batch.args.output, sizeof output));
    CHECK(row_is(output, 0.75f));
    CHECK(is_poison(output + HEAD_DIM, HEAD_DIM * sizeof *output));
    OK(dsa_compressor_destroy(compressor));
    free_batch(&batch);
}

/* ---- Refusals ---------------------------------------------------------------------------------------- */

static void refuses_bad_configs(void) {
    static const struct {
        size_t field;
        uint32_t value;
        const char *word, *other;
    } bad[] = {
        {offsetof(dsa_compressor_config, size), 0, "config->size is 0", "sizeof(dsa_compressor_config)"},
        {offsetof(dsa_compressor_config, size), 39, "config->size is 39", "40..=4096"},
        {offsetof(dsa_compressor_config, ratio), 8, "(head_dim 128, kv bf16, state f32, ratio 8, warps 8)",
         "ratio 128, warps 1|4"},
        {offsetof(dsa_compressor_config, head_dim), 64, "(head_dim 64, kv bf16, state f32, ratio 128, warps 8)",
         "head_dim 128|512"},
        {offsetof(dsa_compressor_config, warps), 3, "(head_dim 128, kv bf16, state f32, ratio 128, warps 3)", ""},
        {offsetof(dsa_compressor_config, kv_type), 3, "config->kv_type is 3", "0..=2"},
        {offsetof(dsa_compressor_config, state_type), 3, "config->state_type is 3", "0..=2"},
        {offsetof(dsa_compressor_config, output_type), 3, "config->output_type is 3", "0..=2"},
        {offsetof(dsa_compressor_config, running), 2, "config->running is 2", "0..=1"},
        {offsetof(dsa_compressor_config, no_overlap), 2, "config->no_overlap is 2", "0..=1"},
        {offsetof(dsa_compressor_config, max_batch), UINT32_MAX, "max_batch is 4294967295", "1..=2147483647"},
    };
    dsa_compressor_config config = config_of(128, HEAD_DIM);
    dsa_compressor *compressor = NULL;
    size_t i;
    CHECK(sizeof config == 40);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        dsa_compressor_config wrong = config;
        memcpy((char *)&wrong + bad[i].field, &bad[i].value, 4);
        REFUSED(dsa_compressor_create(device, &wrong, &compressor), DSA_INVALID_ARGUMENT, bad[i].word, bad[i].other);
    }
    config.running = 1;
    config.state_type = DSA_NUMBER_BF16;
    REFUSED(dsa_compressor_create(device, &config, &compressor), DSA_INVALID_ARGUMENT, "running is true",
            "state = bf16");
    config = config_of(128, HEAD_DIM);
    REFUSED(dsa_compressor_create(NULL, &config, &compressor), DSA_INVALID_ARGUMENT, "device is NULL", "");
    REFUSED(dsa_compressor_create(device, NULL, &compressor), DSA_INVALID_ARGUMENT, "config is NULL", "");
    REFUSED(dsa_compressor_create(device, &config, NULL), DSA_INVALID_ARGUMENT, "compressor is NULL", "");
    CHECK(compressor == NULL);
    OK(dsa_compressor_destroy(NULL));
}

#define WRONG(change, word, other)                                                                               \
    do {                                                                                                         \
        dsa_compress_args wrong = batch.args;                                                                    \
        change;                                                                                                  \
        REFUSED(dsa_compressor_enqueue_decode(compressor, 4, &wrong, NULL), DSA_INVALID_ARGUMENT, word, other);  \
        REFUSED(dsa_compressor_enqueue_prefill(compressor, &wrong, NULL), DSA_INVALID_ARGUMENT, word, other);    \
    } while (0)
#define WRONG_POST(change, word, other)                                                                          \
    do {                                                                                                         \
        dsa_post_args wrong = post;                                                                              \
        change;                                                                                                  \
        REFUSED(dsa_compressor_enqueue_post(compressor, &wrong, NULL), DSA_INVALID_ARGUMENT, word, other);       \
    } while (0)
#define AFTER(pointer, bytes) ((void *)((char *)(pointer) + (bytes)))

static void refuses_bad_launches(void) {
    static const int32_t kv_lens[BATCH] = {4, 4}, cu_new[BATCH + 1] = {0, 4, 8}, cu_out[BATCH + 1] = {0, 1, 2};
    uint16_t output[ROWS * HEAD_DIM];
    Batch batch = batch_of(0, kv_lens, cu_new, cu_out, sizeof output);
    dsa_compressor_config config = config_of(4, HEAD_DIM);
    dsa_compressor *compressor = NULL;
    dsa_compress_args none;
    dsa_post_args post;
    int stream = 0;
    config.max_batch = BATCH;
    OK(dsa_compressor_create(device, &config, &compressor));

    REFUSED(dsa_compressor_enqueue_decode(NULL, 4, &batch.args, NULL), DSA_INVALID_ARGUMENT, "compressor is NULL", "");
    REFUSED(dsa_compressor_enqueue_prefill(NULL, &batch.args, NULL), DSA_INVALID_ARGUMENT, "compressor is NULL", "");
    REFUSED(dsa_compressor_enqueue_post(NULL, NULL, NULL), DSA_INVALID_ARGUMENT, "compressor is NULL", "");
    REFUSED(dsa_compressor_take_report(NULL, NULL), DSA_INVALID_ARGUMENT, "compressor is NULL", "");
    REFUSED(dsa_compressor_take_report(compressor, NULL), DSA_INVALID_ARGUMENT, "report is NULL", "");
    REFUSED(dsa_compressor_enqueue_decode(compressor, 4, NULL, NULL), DSA_INVALID_ARGUMENT, "args is NULL", "");
    REFUSED(dsa_compressor_enqueue_prefill(compressor, AFTER(&batch.args, 2), NULL), DSA_INVALID_ARGUMENT,
            "args is 0x", "aligned to 8 bytes");
    REFUSED(dsa_compressor_enqueue_decode_store(compressor, 4, &batch.args, NULL, NULL), DSA_INVALID_ARGUMENT,
            "post is NULL", "");
    REFUSED(dsa_compressor_enqueue_decode(compressor, 0, &batch.args, NULL), DSA_INVALID_ARGUMENT, "next_n is 0",
            "1..=8");
    REFUSED(dsa_compressor_enqueue_decode(compressor, 9, &batch.args, NULL), DSA_INVALID_ARGUMENT, "next_n is 9",
            "1..=8");
    if (!on_gpu)
        REFUSED(dsa_compressor_enqueue_decode(compressor, 4, &batch.args, &stream), DSA_INVALID_ARGUMENT,
                "stream is 0x", "NULL on the emulator");

    WRONG(wrong.size = 8, "args->size is 8", "sizeof(dsa_compress_args)");
    WRONG(wrong.batch = 3, "batch is 3", "max_batch = 2");
    WRONG(wrong.tokens = UINT32_MAX, "kv_score is of shape [4294967295, 512]", "tokens in 0..=2147483647");
    WRONG(wrong.rows = UINT32_MAX, "output is of shape [4294967295, 128]", "rows in 0..=2147483647");
    WRONG(wrong.kv_score = NULL, "kv_score is null", "a device address");
    WRONG(wrong.kv_score = AFTER(wrong.kv_score, 8), "kv_score is 0x", "aligned to 16 bytes");
    WRONG(wrong.kv_score_pitch = 511, "kv_score is of pitch 511", "at least 512");
    WRONG(wrong.kv_score_pitch = 513, "kv_score is of pitch 513", "multiple of 8 elements");
    WRONG(wrong.ape = NULL, "ape is null", "a device address");
    WRONG(wrong.ape = AFTER(wrong.ape, 4), "ape is 0x", "aligned to 16 bytes");
    WRONG(wrong.kv.pool = NULL, "kv.pool is null", "a device address");
    WRONG(wrong.kv.pages = 0, "kv.pool is of shape [0, 8, 256]", "blocks in 1..=");
    WRONG(wrong.kv.page = 0, "kv.pool is of shape [4, 0, 256]", "page in 1..=");
    WRONG(wrong.kv.pitch = 2046, "kv.pool is of pitch 2046", "at least 2048");
    WRONG(wrong.kv.blocks = AFTER(wrong.kv.blocks, 1), "kv.blocks is 0x", "aligned to 4 bytes");
    WRONG(wrong.kv.max_blocks = 0, "kv.blocks is of shape [2, 0]", "max_blocks in 1..=");
    WRONG(wrong.score.page = 4, "score.pool is of shape [4, 4, 256]", "8, 256]");
    WRONG(wrong.score.max_blocks = 1, "score.blocks is of shape [2, 1]", "[2, 2]");
    WRONG(wrong.score.blocks_pitch = 1, "score.blocks is of pitch 1", "at least 2");
    WRONG(wrong.kv_lens = NULL, "kv_lens is null", "a device address");
    WRONG(wrong.cu_new = AFTER(wrong.cu_new, 2), "cu_new is 0x", "aligned to 4 bytes");
    WRONG(wrong.cu_out = NULL, "cu_out is null", "a device address");
    WRONG(wrong.output = AFTER(wrong.output, 2), "output is 0x", "aligned to 16 bytes");
    WRONG(wrong.output_pitch = 100, "output is of pitch 100", "at least 128");

    memset(&post, 0, sizeof post);
    post.size = sizeof post;
    post.batch = BATCH;
    post.rows = ROWS;
    post.positions = 1;
    post.compressed = batch.args.output;
    post.weight = post.rotations = batch.args.ape;
    post.cache = batch.args.kv;
    post.kv_lens = batch.args.kv_lens;
    post.cu_new = batch.args.cu_new;
    post.cu_out = batch.args.cu_out;
    WRONG_POST(wrong.size = 16, "args->size is 16", "sizeof(dsa_post_args)");
    WRONG_POST(wrong.store = 3, "args->store is 3", "0..=2");
    WRONG_POST(wrong.hadamard = 2, "args->hadamard is 2", "0..=1");
    WRONG_POST(wrong.epsilon = -1.0f, "epsilon is -1", "at least 0");
    WRONG_POST(wrong.batch = 7, "batch is 7", "max_batch = 2");
    WRONG_POST(wrong.compressed = NULL, "compressed is null", "a device address");
    WRONG_POST(wrong.weight = NULL, "weight is null", "a device address");
    WRONG_POST(wrong.rotations = AFTER(wrong.rotations, 4), "rotations is 0x", "aligned to 16 bytes");
    WRONG_POST(wrong.cache.page = 0, "cache.pool is of shape [4, 0, 128]", "page in 1..=");
    WRONG_POST(wrong.scale = wrong.weight, "scale is 0x", "DSA_STORE_FP8_PER_TENSOR");
    WRONG_POST(wrong.scales = wrong.cache.pool, "scales is 0x", "DSA_STORE_FP8_PER_GROUP");
    WRONG_POST(wrong.store = DSA_STORE_FP8_PER_TENSOR, "scale is null", "a device address");
    WRONG_POST(wrong.store = DSA_STORE_FP8_PER_GROUP, "scales is null", "a device address");

    /* No requests, no rows: nothing runs. Nothing was written by what was refused. */
    memset(&none, 0, sizeof none);
    none.size = sizeof none;
    none.kv = none.score = batch.args.kv;
    none.kv.pool = none.score.pool = NULL;
    OK(dsa_compressor_enqueue_decode(compressor, 1, &none, NULL));
    OK(dsa_compressor_enqueue_prefill(compressor, &none, NULL));
    post.rows = 0;
    post.compressed = NULL;
    OK(dsa_compressor_enqueue_post(compressor, &post, NULL));
    no_report(compressor);
    OK(dsa_buffer_download(device, output, batch.args.output, sizeof output));
    CHECK(is_poison(output, sizeof output));
    OK(dsa_compressor_destroy(compressor));
    free_batch(&batch);
}

int main(int argc, char **argv) {
    int prefill;
    choose_backend(argc, argv);
    open_device();
    refuses_bad_configs();
    refuses_bad_launches();
    for (prefill = 0; prefill < 2; prefill++)
        compresses(prefill, 0);
    compresses(0, 1);
    compresses_and_stores(DSA_STORE_BF16);
    compresses_and_stores(DSA_STORE_FP8_PER_TENSOR);
    compresses_and_stores(DSA_STORE_FP8_PER_GROUP);
    reports_bad_requests();
    return finish();
}
