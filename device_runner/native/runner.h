/* What the runner programs share: the job, the report, and the interface to an interpreter. */
#ifndef EDGEPRIVACY_RUNNER_H
#define EDGEPRIVACY_RUNNER_H

#include <stddef.h>
#include <stdint.h>

#include "sha256.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MOST_DIMENSIONS 8
/* Kernels may read some bytes behind their input. */
#define OVERREAD_BYTES 256

/* Exit codes; README.md says what each means. */
enum {
  EXIT_DONE = 0,
  EXIT_USAGE = 2,
  EXIT_IO = 10,
  EXIT_LOAD = 11,
  EXIT_LIBRARY = 12,
  EXIT_MODEL = 13,
  EXIT_ROWS = 14,
  EXIT_RUNTIME = 15,
  EXIT_STORAGE = 16
};

/* End the program with one line of JSON on stderr. `kind` is a word of README.md. */
#ifdef __cplusplus
[[noreturn]]
#else
_Noreturn
#endif
void fail(int code, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));

typedef struct {
  const char **libraries, **models, **model_sha256, **outputs;
  size_t library_count, model_count, model_sha256_count, output_count;
  const char *library_sha256, *check, *input, *input_sha256, *input_type, *kernels, *report;
  size_t row[MOST_DIMENSIONS - 1];
  int row_rank;
  size_t row_numbers, rows, batch, latency_rows;
  int threads;
} job_t;

/* One input or output of a model. `type` is a numpy name, or "unknown". */
typedef struct {
  char *name;
  const char *type;
  size_t number_bytes;
  int rank;
  int64_t shape[MOST_DIMENSIONS];
  int quantized;
  float scale;
  int64_t zero_point;
} tensor_t;

/* A model that is open in its interpreter at one batch. */
typedef struct {
  tensor_t input, output; /* the output's shape is that of a call */
  size_t batch;     /* rows of a call */
  int exact;        /* every call must have just that many rows */
  int resizable;    /* the batch was a choice */
  size_t row_bytes; /* of the output */
  const char *delegates[4];
  int delegate_count;
  int accelerated; /* the delegate runs all of it: 1, 0, or -1 for unknown */
  void *engine;
} model_t;

/* The interpreter: litert.c or executorch.cpp. Each ends the program by `fail` on an error. */
extern const char *const program_name, *const runtime_name;
/* Load the runtime; called once the hashes of its files are known to be right. */
void engine_start(const job_t *job);
/* Open a model for calls of up to `batch` rows. NULL if it does not work at such a batch, never for 1: then a
   model of another fixed batch is opened at that, and a model that does not work at all ends the program. */
model_t *engine_open(const job_t *job, const char *path, size_t batch);
/* Run `rows` encoded rows (all of the batch if `exact`); their outputs' bytes. Input has OVERREAD_BYTES of
   readable memory behind it. 0 if the interpreter failed. */
int engine_run(model_t *model, const void *input, size_t rows, void *output);
void engine_close(model_t *model);

/* Whether a tensor of these sizes is one vector for each of `rows` rows. */
int vector_a_row(const tensor_t *tensor, size_t rows);

/* By a clock that only goes forward. */
double seconds_now(void);
void *must_allocate(size_t size);
char *must_copy(const char *text);

#ifdef __cplusplus
}
#endif

#endif
