/* The course of a run, the same for every interpreter: check the runtime, run every model, write the report. */
#define _GNU_SOURCE
#include "runner.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "arguments.h"
#include "files.h"
#include "json.h"
#include "models.h"

enum { CHECK_NUMBERS = 4 };

static long current_model = -1;
static int in_self_test;
static const char *unfinished; /* a file that nobody should find */

void fail(int code, const char *kind, const char *format, ...) {
  char text[1024] = "self-test: ";
  size_t used = in_self_test ? strlen(text) : 0;
  va_list rest;
  va_start(rest, format);
  vsnprintf(text + used, sizeof text - used, format, rest);
  va_end(rest);
  /* Whatever goes wrong with the check model is wrong with the runtime. */
  if (in_self_test) code = EXIT_LIBRARY, kind = "library";
  if (unfinished) unlink(unfinished);
  fprintf(stderr, "\nedgeprivacy-error: {\"kind\": \"%s\", \"model\": %ld, \"message\": ", kind, current_model);
  json_text(stderr, text);
  fprintf(stderr, "}\n");
  fflush(NULL);
  _exit(code); /* an interpreter's own clean-up may fail in its turn */
}

void *must_allocate(size_t size) {
  void *memory = calloc(size ? size : 1, 1);
  if (!memory) fail(EXIT_RUNTIME, "runtime", "out of memory: %zu bytes", size);
  return memory;
}

char *must_copy(const char *text) {
  char *copy = must_allocate(strlen(text) + 1);
  strcpy(copy, text);
  return copy;
}

double seconds_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Bytes of a line "NAME: 123 kB" of /proc/self/status; 0 where it is not there. */
static size_t status_bytes(const char *name) {
  FILE *status = fopen("/proc/self/status", "r");
  char line[256];
  size_t found = 0, length = strlen(name);
  while (status && fgets(line, sizeof line, status))
    if (!strncmp(line, name, length) && line[length] == ':') found = strtoull(line + length + 1, NULL, 10) * 1024;
  if (status) fclose(status);
  return found;
}

/* Compare the runtime's files with what is expected; their digests, for the report. */
static void check_libraries(const job_t *job, char (*digests)[SHA256_HEX], size_t *sizes) {
  sha256_t all;
  sha256_start(&all);
  for (size_t i = 0; i < job->library_count; i++) {
    sizes[i] = hash_file(job->libraries[i], digests[i]);
    sha256_add(&all, digests[i], SHA256_HEX - 1);
  }
  char whole[SHA256_HEX];
  sha256_end(&all, whole);
  const char *found = job->library_count == 1 ? digests[0] : whole;
  if (strcmp(found, job->library_sha256))
    fail(EXIT_LIBRARY, "library", "the runtime's libraries are others than expected: %.16s, not %.16s", found,
         job->library_sha256);
}

/* Run the softmax of four known numbers: the runtime, its processor code and this program's picture of its
   interface are right together, or nothing else is run. The largest difference. */
static double self_test(const job_t *job) {
  static const float numbers[CHECK_NUMBERS] = {0, 1, 2, 3};
  in_self_test = 1;
  job_t alone = *job;
  alone.row_rank = 1;
  alone.row[0] = alone.row_numbers = CHECK_NUMBERS;
  model_t *model = engine_open(&alone, job->check, 1);
  if (strcmp(model->input.type, "float32") || strcmp(model->output.type, "float32") ||
      model->row_bytes != sizeof numbers || model->batch != 1)
    fail(EXIT_LIBRARY, "library", "the check model is read wrongly");
  float *input = must_allocate(sizeof numbers + OVERREAD_BYTES), output[CHECK_NUMBERS];
  memcpy(input, numbers, sizeof numbers);
  if (!engine_run(model, input, 1, output)) fail(EXIT_LIBRARY, "library", "the interpreter failed");
  double sum = 0, worst = 0;
  for (int i = 0; i < CHECK_NUMBERS; i++) sum += exp(numbers[i]);
  for (int i = 0; i < CHECK_NUMBERS; i++) {
    double apart = fabs((double)output[i] - exp(numbers[i]) / sum);
    if (!(apart <= worst)) worst = apart;
  }
  if (!(worst <= 1e-5)) fail(EXIT_LIBRARY, "library", "a softmax came out wrong by %g", worst);
  free(input);
  engine_close(model);
  in_self_test = 0;
  return worst;
}

int main(int count, char **words) {
  if (count > 1 && !strcmp(words[1], "--hash")) return print_hashes(count - 2, words + 2);
  job_t job;
  read_arguments(count, words, &job);
  double began = seconds_now();
  unlink(job.report); /* of an earlier run: it would call this one whole */
  char(*digests)[SHA256_HEX] = must_allocate(job.library_count * sizeof *digests);
  size_t *sizes = must_allocate(job.library_count * sizeof *sizes);
  check_libraries(&job, digests, sizes);
  engine_start(&job);
  double apart = self_test(&job);
  size_t before = status_bytes("VmRSS");

  mapped_t rows = map_file(job.input);
  size_t width = !strcmp(job.input_type, "uint8") ? 1 : sizeof(float);
  if (rows.size != job.rows * job.row_numbers * width)
    fail(EXIT_ROWS, "rows", "the input has %zu bytes, not %zu rows of %zu numbers", rows.size, job.rows,
         job.row_numbers);
  hashing_t rows_hash;
  start_hashing(&rows_hash, job.input, rows, job.input_sha256);

  char *part = must_allocate(strlen(job.report) + 6);
  sprintf(part, "%s.part", job.report);
  FILE *report = fopen(part, "w");
  if (!report) fail(EXIT_STORAGE, "storage", "cannot write %s: %s", part, strerror(errno));
  unfinished = part;
  struct utsname system;
  uname(&system);
  char kernel[sizeof system.sysname + sizeof system.release + 1];
  sprintf(kernel, "%s %s", system.sysname, system.release);
#ifdef __ANDROID__
  const char *build = "android-bionic";
#else
  const char *build = "linux-glibc";
#endif
  fprintf(report, "{\"schema\": \"edgeprivacy.native/1\", \"program\": \"%s\", \"program_version\": \"1\", ", program_name);
  fprintf(report, "\"build\": \"%s\", \"runtime\": \"%s\",\n \"library_sha256\": \"%s\", \"libraries\": [", build,
          runtime_name, job.library_sha256);
  for (size_t i = 0; i < job.library_count; i++) {
    const char *slash = strrchr(job.libraries[i], '/');
    fprintf(report, "%s{\"file\": ", i ? ", " : "");
    json_text(report, slash ? slash + 1 : job.libraries[i]);
    fprintf(report, ", \"sha256\": \"%s\", \"bytes\": %zu}", digests[i], sizes[i]);
  }
  fprintf(report, "],\n \"machine\": ");
  json_text(report, system.machine);
  fprintf(report, ", \"system\": ");
  json_text(report, kernel);
  fprintf(report, ", \"threads\": %d, \"kernels\": \"%s\",\n", job.threads, job.kernels);
  fprintf(report, " \"check\": {\"max_abs\": %.3g},\n \"models\": [", apart);
  for (size_t i = 0; i < job.model_count; i++) {
    current_model = (long)i;
    fprintf(report, "%s\n ", i ? "," : "");
    run_model(&job, rows, &rows_hash, i, report);
  }
  current_model = -1;
  fprintf(report, "],\n \"input\": {\"sha256\": \"%s\", \"bytes\": %zu, \"rows\": %zu, \"type\": \"%s\", \"row\": [",
          hash_when_done(&rows_hash), rows.size, job.rows, job.input_type);
  for (int i = 0; i < job.row_rank; i++) fprintf(report, "%s%zu", i ? ", " : "", job.row[i]);
  fprintf(report, "]},\n \"memory_before_models_bytes\": %zu, \"peak_memory_bytes\": %zu, \"seconds\": %.6f}\n", before,
          status_bytes("VmHWM"), seconds_now() - began);
  if (fflush(report) || fsync(fileno(report)) || fclose(report) || rename(part, job.report))
    fail(EXIT_STORAGE, "storage", "cannot write the report: %s", strerror(errno));
  _exit(EXIT_DONE); /* everything is on disk; an interpreter's own clean-up could only fail */
}
