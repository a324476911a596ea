/*
 * The C ABI, used as a C program uses it: results are compared with a selection by sorting, and every error
 * that a caller can make is made.
 *
 *     topk_c [emulator|gpu]
 *
 * Exit status: 0 when every check passed, 1 when one did not.
 */
#define PROGRAM "topk"
#include "check.h"

#include <math.h>

/* ---- The right answer -------------------------------------------------------------------------------- */

typedef struct {
    float score;
    int32_t index;
} Element;

/* Largest first, NaN last, lowest index first among equals. */
static int descending(const void *left, const void *right) {
    const Element *a = left, *b = right;
    if (isnan(a->score) != isnan(b->score))
        return isnan(a->score) ? 1 : -1;
    if (a->score > b->score || a->score < b->score)
        return a->score > b->score ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static int ascending_index(const void *left, const void *right) {
    const Element *a = left, *b = right;
    return a->index < b->index ? -1 : 1;
}

static int equal(float a, float b) { return isnan(a) ? isnan(b) : a == b; }

/* Whether the k words at `out`, and the values unless NULL, are right for a row of `length` scores.
 * `exact`: lowest indices among equals, in ascending order. */
static int row_is_right(const float *scores, int32_t length, uint32_t k, const int32_t *out,
                        const float *values, int exact) {
    uint32_t n = length < 0 ? 0 : (uint32_t)length, wanted = n < k ? n : k, i;
    Element *best = malloc((n + 1) * sizeof *best), *found = malloc((k + 1) * sizeof *found);
    char *seen = calloc(n + 1, 1);
    int right = 1;
    for (i = 0; i < n; i++) {
        best[i].score = scores[i];
        best[i].index = (int32_t)i;
    }
    qsort(best, n, sizeof *best, descending);
    for (i = 0; i < k && right; i++) {
        if (i >= wanted) {
            right = out[i] == -1;
        } else if (out[i] < 0 || (uint32_t)out[i] >= n || seen[out[i]]) {
            right = 0;
        } else {
            seen[out[i]] = 1;
            found[i].score = scores[out[i]];
            found[i].index = out[i];
            right = !values || equal(values[i], scores[out[i]]);
        }
    }
    if (right && exact) {
        qsort(best, wanted, sizeof *best, ascending_index);
        for (i = 0; i < wanted && right; i++)
            right = out[i] == best[i].index;
    } else if (right) {
        qsort(found, wanted, sizeof *found, descending);
        for (i = 0; i < wanted && right; i++)
            right = equal(found[i].score, best[i].score);
    }
    free(best);
    free(found);
    free(seen);
    return right;
}

/* ---- Batches ----------------------------------------------------------------------------------------- */

static uint32_t random_bits(void) {
    static uint32_t state = 0x9e3779b9u;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

/* A whole number of small size in the 16-bit formats. */
static uint16_t to_half(int value, uint32_t type) {
    float number = (float)value;
    uint32_t bits;
    memcpy(&bits, &number, 4);
    if (type == DSA_SCORES_BF16)
        return (uint16_t)(bits >> 16);
    if (value == 0)
        return 0;
    return (uint16_t)((bits >> 16 & 0x8000) | (((bits >> 23 & 0xff) - 112) << 10) | (bits >> 13 & 0x3ff));
}

static float from_half(uint16_t half, uint32_t type) {
    uint32_t bits = (uint32_t)half << 16;
    float number;
    if (type == DSA_SCORES_F16) {
        if ((half & 0x7fff) == 0)
            return 0.0f;
        if ((half & 0x7fff) == 0x7c00)
            return half & 0x8000 ? -INFINITY : INFINITY;
        bits = (half & 0x8000u) << 16 | ((half >> 10 & 0x1fu) + 112) << 23 | (half & 0x3ffu) << 13;
    }
    memcpy(&number, &bits, 4);
    return number;
}

static dsa_topk_config config_of(uint32_t k, uint32_t max_rows, uint32_t max_len) {
    dsa_topk_config config;
    memset(&config, 0, sizeof config);
    config.size = sizeof config;
    config.k = k;
    config.max_rows = max_rows;
    config.max_len = max_len;
    return config;
}

/* Selects from `rows` rows of random lengths and checks every one. Whole scores have many ties; the others
 * hold NaN and infinities. Returns 0 if the kernels do not have what `config` asks for. */
static int run(const dsa_topk_config *config, uint32_t rows, uint32_t pitch, int whole) {
    uint32_t next_n = config->next_n ? config->next_n : 1, row, i;
    uint32_t ratio = config->compress_ratio ? config->compress_ratio : 1;
    size_t element = config->score_type == DSA_SCORES_F32 ? 4 : 2, count = (size_t)rows * config->k;
    size_t scores_bytes = ((size_t)(rows - 1) * pitch + config->max_len) * element, workspace_bytes = 0;
    int exact = config->ties == DSA_TIES_LOWEST_INDEX && config->order == DSA_ORDER_ASCENDING_INDEX;
    dsa_topk *topk = NULL;
    dsa_status created = dsa_topk_create(device, config, &topk);
    float *scores, *values;
    uint16_t *halves, *half_values;
    int32_t *lengths, *out;
    void *on_device[5] = {NULL, NULL, NULL, NULL, NULL};

    if (!check(created == DSA_OK, dsa_last_error(), __LINE__))
        return 1;
    scores = malloc((size_t)rows * pitch * sizeof *scores);
    halves = malloc((size_t)rows * pitch * sizeof *halves);
    lengths = malloc(rows / next_n * sizeof *lengths);
    out = malloc(count * sizeof *out);
    values = malloc(count * sizeof *values);
    half_values = malloc(count * sizeof *half_values);
    for (row = 0; row < rows / next_n; row++) {
        static const int32_t odd[] = {-1, 0, 1, INT32_MAX, INT32_MIN};
        uint32_t bits = random_bits();
        lengths[row] = row % 4 == 3 ? odd[bits % 5] : (int32_t)(bits % (ratio * config->max_len) + 1);
    }
    lengths[0] = (int32_t)(ratio * config->max_len);
    for (i = 0; i < rows * pitch; i++) {
        uint32_t bits = random_bits();
        int number = (int)(bits % 200) - 100;
        scores[i] = whole ? (float)number : (float)(int32_t)bits * 1e-6f;
        if (!whole && bits % 61 == 0)
            scores[i] = bits % 2 ? NAN : bits % 4 ? -INFINITY : INFINITY;
        halves[i] = to_half(number, config->score_type);
    }
    on_device[0] = upload(element == 4 ? (void *)scores : (void *)halves, scores_bytes);
    on_device[1] = upload(lengths, rows / next_n * sizeof *lengths);
    on_device[2] = poisoned(count * sizeof *out);
    if (config->values)
        on_device[3] = poisoned(count * element);
    OK(dsa_topk_workspace_bytes(topk, &workspace_bytes));
    if (workspace_bytes > 0) {
        on_device[4] = poisoned(workspace_bytes);
        REFUSED(dsa_topk_enqueue(topk, on_device[0], pitch, rows, on_device[1], on_device[2], on_device[3],
                                 on_device[4], workspace_bytes - 1, NULL),
                DSA_WORKSPACE_TOO_SMALL, "workspace_bytes is", "dsa_topk_workspace_bytes");
    }
    for (i = 0; i < 2; i++)
        OK(dsa_topk_enqueue(topk, on_device[0], pitch, rows, on_device[1], on_device[2], on_device[3],
                            on_device[4], workspace_bytes, NULL));
    OK(dsa_stream_synchronize(device, NULL));
    OK(dsa_buffer_download(device, out, on_device[2], count * sizeof *out));
    if (config->values)
        OK(dsa_buffer_download(device, element == 4 ? (void *)values : (void *)half_values, on_device[3],
                               count * element));
    for (i = 0; element == 2 && config->values && i < count; i++)
        values[i] = from_half(half_values[i], config->score_type);
    for (row = 0; row < rows; row++) {
        int64_t length = lengths[row / next_n];
        char text[160];
        if (next_n > 1 || ratio > 1)
            length = length - next_n + 1 + row % next_n;
        length = length < 0 ? 0 : length / ratio;
        length = length > config->max_len ? config->max_len : length;
        sprintf(text, "row %u of %u, length %d, k %u, type %u, ties %u, order %u", (unsigned)row, (unsigned)rows,
                (int)length, (unsigned)config->k, (unsigned)config->score_type, (unsigned)config->ties,
                (unsigned)config->order);
        check(row_is_right(scores + (size_t)row * pitch, (int32_t)length, config->k, out + row * config->k,
                           config->values ? values + row * config->k : NULL, exact),
              text, __LINE__);
    }
    OK(dsa_topk_destroy(topk));
    for (i = 0; i < 5; i++)
        OK(dsa_buffer_free(device, on_device[i]));
    free(scores);
    free(halves);
    free(lengths);
    free(out);
    free(values);
    free(half_values);
    return 1;
}

static void selects_exactly(void) {
    dsa_topk_config config = config_of(10, 7, 100);
    uint32_t type;
    run(&config, 7, 120, 0);
    run(&config, 5, 100, 1);
    config = config_of(64, 6, 9000);
    config.next_n = 2;
    config.compress_ratio = 4;
    config.max_sms = 2;
    run(&config, 6, 9001, 1);
    config.no_overlap = 1;
    run(&config, 6, 9001, 1);
    config = config_of(2048, 3, 40000);
    run(&config, 3, 40000, 0);
    config = config_of(50, 2, 5000);
    for (config.path = DSA_PATH_RESIDENT; config.path <= DSA_PATH_LARGE; config.path++)
        run(&config, 2, 5000, 0);

    /* What a version's kernels may lack is refused by name; what they have must be right. */
    config = config_of(33, 5, 3000);
    config.values = 1;
    config.ties = DSA_TIES_LOWEST_INDEX;
    config.order = DSA_ORDER_ASCENDING_INDEX;
    for (type = DSA_SCORES_F32; type <= DSA_SCORES_BF16; type++) {
        config.score_type = type;
        if (!run(&config, 5, 3008, 1))
            printf("score type %u with values, ties and order: not in these kernels\n", (unsigned)type);
    }
}

/* ---- Refusals ---------------------------------------------------------------------------------------- */

static void refuses_bad_devices(void) {
    dsa_device *none = NULL;
    REFUSED(dsa_device_open_emulator(NULL), DSA_INVALID_ARGUMENT, "device is NULL", "valid pointer");
    REFUSED(dsa_device_open_cuda(0, NULL), DSA_INVALID_ARGUMENT, "device is NULL", "valid pointer");
    REFUSED(dsa_device_open_cuda(-2, &none), DSA_INVALID_ARGUMENT, "ordinal is -2", "DSA_CURRENT_CONTEXT");
    REFUSED(dsa_device_open_cuda(1000, &none), DSA_NO_DEVICE, "", "");
    CHECK(none == NULL);
    OK(dsa_device_close(NULL));
    REFUSED(dsa_stream_synchronize(NULL, NULL), DSA_INVALID_ARGUMENT, "device is NULL", "");
    if (!on_gpu)
        REFUSED(dsa_stream_synchronize(device, &none), DSA_INVALID_ARGUMENT, "stream is 0x", "emulator");
}

static void refuses_bad_buffers(void) {
    void *memory = NULL;
    char bytes[16] = {0};
    REFUSED(dsa_buffer_alloc(NULL, 4, &memory), DSA_INVALID_ARGUMENT, "device is NULL", "");
    REFUSED(dsa_buffer_alloc(device, 4, NULL), DSA_INVALID_ARGUMENT, "address is NULL", "");
    REFUSED(dsa_buffer_alloc(device, 4, (void **)(void *)((char *)&memory + 1)), DSA_INVALID_ARGUMENT,
            "address is 0x", "aligned to 8 bytes");
    REFUSED(dsa_buffer_alloc(device, SIZE_MAX, &memory), DSA_OUT_OF_MEMORY, "18446744073709551615", "bytes");
    REFUSED(dsa_buffer_alloc(device, (size_t)1 << 50, &memory), DSA_OUT_OF_MEMORY, "1125899906842624", "");
    CHECK(memory == NULL);
    OK(dsa_buffer_alloc(device, 16, &memory));
    CHECK((uintptr_t)memory % 256 == 0);
    REFUSED(dsa_buffer_upload(NULL, memory, bytes, 16), DSA_INVALID_ARGUMENT, "device is NULL", "");
    REFUSED(dsa_buffer_upload(device, memory, NULL, 16), DSA_INVALID_ARGUMENT, "source is NULL", "");
    REFUSED(dsa_buffer_upload(device, NULL, bytes, 16), DSA_INVALID_ARGUMENT, "destination is 16 bytes", "");
    REFUSED(dsa_buffer_upload(device, (char *)memory + 4, bytes, 13), DSA_INVALID_ARGUMENT,
            "destination is 13 bytes at 0x", "dsa_buffer_alloc");
    REFUSED(dsa_buffer_download(device, NULL, memory, 16), DSA_INVALID_ARGUMENT, "destination is NULL", "");
    REFUSED(dsa_buffer_download(device, bytes, (char *)memory + 16, 1), DSA_INVALID_ARGUMENT,
            "source is 1 bytes at 0x", "dsa_buffer_alloc");
    OK(dsa_buffer_upload(device, memory, "abcdefghijklmnop", 16));
    OK(dsa_buffer_upload(device, (char *)memory + 4, "EFG", 3));
    OK(dsa_buffer_download(device, bytes, (char *)memory + 2, 8));
    CHECK(memcmp(bytes, "cdEFGhij", 9) == 0);
    OK(dsa_buffer_upload(device, NULL, NULL, 0));
    REFUSED(dsa_buffer_free(device, (char *)memory + 1), DSA_INVALID_ARGUMENT, "address is 0x",
            "dsa_buffer_alloc returned");
    OK(dsa_buffer_free(device, memory));
    REFUSED(dsa_buffer_free(device, memory), DSA_INVALID_ARGUMENT, "address is 0x", "once");
    OK(dsa_buffer_free(device, NULL));
}

static void refuses_bad_configs(void) {
    static const struct {
        size_t field;
        uint32_t value;
        const char *word, *other;
    } bad[] = {
        {offsetof(dsa_topk_config, size), 0, "config->size is 0", "sizeof"},
        {offsetof(dsa_topk_config, size), 47, "config->size is 47", "48..=4096"},
        {offsetof(dsa_topk_config, k), 0, "k is 0", "1..="},
        {offsetof(dsa_topk_config, k), 1u << 30, "k is 1073741824", "1..="},
        {offsetof(dsa_topk_config, max_rows), 0, "max_rows is 0", "1..="},
        {offsetof(dsa_topk_config, max_rows), UINT32_MAX, "max_rows is 4294967295", "2147483647"},
        {offsetof(dsa_topk_config, max_len), 0, "max_len is 0", "1..="},
        {offsetof(dsa_topk_config, max_len), UINT32_MAX, "max_len is 4294967295", "2147483647"},
        {offsetof(dsa_topk_config, next_n), UINT32_MAX, "next_n is 4294967295", "2147483647"},
        {offsetof(dsa_topk_config, compress_ratio), UINT32_MAX, "compress_ratio is", "2147483647"},
        {offsetof(dsa_topk_config, score_type), 3, "config->score_type is 3", "0..=2"},
        {offsetof(dsa_topk_config, ties), 2, "config->ties is 2", "0..=1"},
        {offsetof(dsa_topk_config, order), 2, "config->order is 2", "0..=1"},
        {offsetof(dsa_topk_config, values), 2, "config->values is 2", "0..=1"},
        {offsetof(dsa_topk_config, no_overlap), 2, "config->no_overlap is 2", "0..=1"},
        {offsetof(dsa_topk_config, path), 99, "config->path is 99", "0..="},
        {offsetof(dsa_topk_config, path), DSA_PATH_TRIVIAL, "max_len is 20000", "trivial"},
        {offsetof(dsa_topk_config, path), DSA_PATH_DECODE, "max_len is 20000", "decode"},
    };
    struct {
        dsa_topk_config config;
        uint32_t later[4];
    } larger;
    dsa_topk_config config = config_of(10, 2, 20000);
    dsa_topk *topk = NULL;
    size_t i;
    CHECK(sizeof config == 52);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        dsa_topk_config wrong = config;
        memcpy((char *)&wrong + bad[i].field, &bad[i].value, 4);
        REFUSED(dsa_topk_create(device, &wrong, &topk), DSA_INVALID_ARGUMENT, bad[i].word, bad[i].other);
    }
    REFUSED(dsa_topk_create(NULL, &config, &topk), DSA_INVALID_ARGUMENT, "device is NULL", "");
    REFUSED(dsa_topk_create(device, NULL, &topk), DSA_INVALID_ARGUMENT, "config is NULL", "");
    REFUSED(dsa_topk_create(device, &config, NULL), DSA_INVALID_ARGUMENT, "topk is NULL", "");
    REFUSED(dsa_topk_create(device, (dsa_topk_config *)(void *)((char *)&larger + 2), &topk),
            DSA_INVALID_ARGUMENT, "config is 0x", "aligned to 4 bytes");
    memset(&larger, 0, sizeof larger);
    larger.config = config;
    larger.config.size = sizeof larger;
    larger.later[3] = 1;
    REFUSED(dsa_topk_create(device, &larger.config, &topk), DSA_INVALID_ARGUMENT, "at byte 64", "later version");
    CHECK(topk == NULL);
    larger.later[3] = 0;
    OK(dsa_topk_create(device, &larger.config, &topk));
    OK(dsa_topk_destroy(topk));
    OK(dsa_topk_destroy(NULL));
}

static void refuses_bad_launches(void) {
    enum { K = 5, LEN = 50, PITCH = 64, ROWS = 4 };
    dsa_topk_config config = config_of(K, ROWS, LEN);
    float scores[ROWS * PITCH];
    int32_t lengths[ROWS / 2] = {LEN, 2}, out[ROWS * K];
    void *on_device[3], *freed = NULL, *workspace = NULL;
    size_t bytes = 1, i;
    dsa_topk *topk = NULL;
    int stream = 0;
    for (i = 0; i < ROWS * PITCH; i++)
        scores[i] = (float)(i * 37 % 101);
    config.next_n = 2;
    OK(dsa_topk_create(device, &config, &topk));
    REFUSED(dsa_topk_workspace_bytes(NULL, &bytes), DSA_INVALID_ARGUMENT, "topk is NULL", "");
    REFUSED(dsa_topk_workspace_bytes(topk, NULL), DSA_INVALID_ARGUMENT, "bytes is NULL", "");
    OK(dsa_topk_workspace_bytes(topk, &bytes));
    workspace = bytes > 0 ? poisoned(bytes) : NULL;
    on_device[0] = upload(scores, sizeof scores);
    on_device[1] = upload(lengths, sizeof lengths);
    on_device[2] = poisoned(sizeof out);

#define ENQUEUE(scores, pitch, rows, lengths, out)                                                                \
    dsa_topk_enqueue(topk, (char *)on_device[0] + (scores), (pitch), (rows),                                      \
                     (int32_t *)(void *)((char *)on_device[1] + (lengths)),                                       \
                     (int32_t *)(void *)((char *)on_device[2] + (out)), NULL, workspace, bytes, NULL)
    REFUSED(dsa_topk_enqueue(NULL, on_device[0], PITCH, ROWS, on_device[1], on_device[2], NULL, workspace, bytes,
                             NULL),
            DSA_INVALID_ARGUMENT, "topk is NULL", "");
    REFUSED(ENQUEUE(0, PITCH, 6, 0, 0), DSA_INVALID_ARGUMENT, "rows is 6", "max_rows = 4");
    REFUSED(ENQUEUE(0, PITCH, 3, 0, 0), DSA_INVALID_ARGUMENT, "rows is 3", "next_n = 2");
    REFUSED(ENQUEUE(0, LEN - 1, ROWS, 0, 0), DSA_INVALID_ARGUMENT, "pitch is 49", "max_len = 50");
    REFUSED(ENQUEUE(0, UINT64_MAX / 8, ROWS, 0, 0), DSA_INVALID_ARGUMENT, "pitch is", "address");
    REFUSED(ENQUEUE(2, PITCH, ROWS, 0, 0), DSA_INVALID_ARGUMENT, "scores is 0x", "aligned to 4 bytes");
    REFUSED(ENQUEUE(0, PITCH, ROWS, 1, 0), DSA_INVALID_ARGUMENT, "lengths is 0x", "aligned to 4 bytes");
    REFUSED(ENQUEUE(0, PITCH, ROWS, 0, 3), DSA_INVALID_ARGUMENT, "out is 0x", "aligned to 4 bytes");
    REFUSED(dsa_topk_enqueue(topk, NULL, PITCH, ROWS, on_device[1], on_device[2], NULL, workspace, bytes, NULL),
            DSA_INVALID_ARGUMENT, "scores is null", "device address");
    REFUSED(dsa_topk_enqueue(topk, on_device[0], PITCH, ROWS, NULL, on_device[2], NULL, workspace, bytes, NULL),
            DSA_INVALID_ARGUMENT, "lengths is null", "device address");
    REFUSED(dsa_topk_enqueue(topk, on_device[0], PITCH, ROWS, on_device[1], NULL, NULL, workspace, bytes, NULL),
            DSA_INVALID_ARGUMENT, "out is null", "device address");
    REFUSED(dsa_topk_enqueue(topk, on_device[0], PITCH, ROWS, on_device[1], on_device[2], on_device[2], workspace,
                             bytes, NULL),
            DSA_INVALID_ARGUMENT, "values is 0x", "without values");
    REFUSED(dsa_topk_enqueue(topk, on_device[0], PITCH, ROWS, on_device[1], on_device[2], NULL, NULL, bytes + 1,
                             NULL),
            DSA_INVALID_ARGUMENT, "workspace is null", "");
    REFUSED(dsa_topk_enqueue(topk, on_device[0], PITCH, ROWS, on_device[1], on_device[2], NULL,
                             (char *)on_device[0] + 64, bytes, NULL),
            DSA_INVALID_ARGUMENT, "workspace is 0x", "aligned to 256 bytes");
    if (!on_gpu)
        REFUSED(dsa_topk_enqueue(topk, on_device[0], PITCH, ROWS, on_device[1], on_device[2], NULL, workspace,
                                 bytes, &stream),
                DSA_INVALID_ARGUMENT, "stream is 0x", "NULL on the emulator");

    /* No rows: nothing runs, and nothing was written by what was refused. */
    OK(dsa_topk_enqueue(topk, NULL, PITCH, 0, NULL, NULL, NULL, NULL, 0, NULL));
    OK(dsa_stream_synchronize(device, NULL));
    OK(dsa_buffer_download(device, out, on_device[2], sizeof out));
    for (i = 0; i < ROWS * K; i++)
        CHECK(out[i] == 0x5a5a5a5a);

    /* The emulator reports a launch that reads freed memory; the operator recovers. */
    if (!on_gpu) {
        freed = upload(scores, sizeof scores);
        OK(dsa_buffer_free(device, freed));
        REFUSED(dsa_topk_enqueue(topk, freed, PITCH, ROWS, on_device[1], on_device[2], NULL, workspace, bytes,
                                 NULL),
                DSA_DEVICE_FAILED, "freed", "");
    }
    OK(ENQUEUE(0, PITCH, ROWS, 0, 0));
    OK(dsa_stream_synchronize(device, NULL));
    OK(dsa_buffer_download(device, out, on_device[2], sizeof out));
    for (i = 0; i < ROWS; i++) {
        int32_t length = lengths[i / 2] - 1 + (int32_t)(i % 2);
        CHECK(row_is_right(scores + i * PITCH, length, K, out + i * K, NULL, 0));
    }
    OK(dsa_topk_destroy(topk));
    for (i = 0; i < 3; i++)
        OK(dsa_buffer_free(device, on_device[i]));
    OK(dsa_buffer_free(device, workspace));
}

int main(int argc, char **argv) {
    char version[32];
    choose_backend(argc, argv);
    CHECK(strcmp(dsa_last_error(), "") == 0);
    sprintf(version, "%d.%d.%d", DSA_VERSION_MAJOR, DSA_VERSION_MINOR, DSA_VERSION_PATCH);
    CHECK(strcmp(version, dsa_version_string()) == 0);
    CHECK(dsa_version() == 10000 * DSA_VERSION_MAJOR + 100 * DSA_VERSION_MINOR + DSA_VERSION_PATCH);

    open_device();
    refuses_bad_devices();
    refuses_bad_buffers();
    refuses_bad_configs();
    refuses_bad_launches();
    selects_exactly();
    return finish();
}
