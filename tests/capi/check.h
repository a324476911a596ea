/*
 * What the C programs of the tests share: checks that are counted, and the device of the suite. A program
 * defines PROGRAM, its name, and is called `PROGRAM_c [emulator|gpu]`. Its exit status is 0 when every check
 * passed, 1 when one did not.
 */
#ifndef DSA_TESTS_CHECK_H
#define DSA_TESTS_CHECK_H

#include "dsa_kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int checks, failures, on_gpu;
static dsa_device *device;

#define CHECK(condition) check((condition) != 0, #condition, __LINE__)
#define OK(call) expect((call), DSA_OK, "", "", #call, __LINE__)
#define REFUSED(call, status, word, other) expect((call), (status), (word), (other), #call, __LINE__)

static int check(int passed, const char *text, int line) {
    checks++;
    if (!passed) {
        failures++;
        fprintf(stderr, PROGRAM ".c:%d: not so: %s\n", line, text);
    }
    return passed;
}

/* Requires a status, and of a failure that its message has both words. */
static void expect(dsa_status got, dsa_status wanted, const char *word, const char *other, const char *text,
                   int line) {
    const char *message = dsa_last_error();
    checks++;
    if (got != wanted) {
        failures++;
        fprintf(stderr, PROGRAM ".c:%d: %s: status %d instead of %d (%s)\n", line, text, (int)got, (int)wanted,
                got == DSA_OK ? "" : message);
    } else if (got != DSA_OK && (!strstr(message, word) || !strstr(message, other))) {
        failures++;
        fprintf(stderr, PROGRAM ".c:%d: %s: \"%s\" lacks \"%s\" or \"%s\"\n", line, text, message, word, other);
    }
}

/* The backend that the command line names; ends the program if it names none. */
static void choose_backend(int argc, char **argv) {
    on_gpu = argc > 1 && strcmp(argv[1], "gpu") == 0;
    if (argc > 2 || (argc > 1 && !on_gpu && strcmp(argv[1], "emulator") != 0)) {
        fprintf(stderr, "usage: %s [emulator|gpu]\n", argv[0]);
        exit(1);
    }
}

/* Opens the device; ends the program if that fails. */
static void open_device(void) {
    dsa_status opened = on_gpu ? dsa_device_open_cuda(0, &device) : dsa_device_open_emulator(&device);
    if (!check(opened == DSA_OK, dsa_last_error(), __LINE__))
        exit(1);
}

/* Closes the device and says what was found; the exit status. */
static int finish(void) {
    OK(dsa_device_close(device));
    printf("%d of %d checks passed on the %s\n", checks - failures, checks, on_gpu ? "GPU" : "emulator");
    return failures > 0;
}

/* Device memory that holds a copy. */
static void *upload(const void *source, size_t bytes) {
    void *address = NULL;
    OK(dsa_buffer_alloc(device, bytes, &address));
    OK(dsa_buffer_upload(device, address, source, bytes));
    return address;
}

/* Device memory that holds 0x5a in every byte. */
static void *poisoned(size_t bytes) {
    void *host = malloc(bytes), *address;
    memset(host, 0x5a, bytes);
    address = upload(host, bytes);
    free(host);
    return address;
}

#endif
