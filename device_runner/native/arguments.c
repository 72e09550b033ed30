#include "arguments.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: %s --library FILE [--library FILE ...] --library-sha256 HEX --check MODEL\n"
    "          --input FILE --input-type float32|uint8 --row D[,D...] --rows N\n"
    "          [--threads 1] [--kernels XNNPACK|built-in] [--batch 256] [--latency-rows 0]\n"
    "          [--input-sha256 HEX] [--model-sha256 HEX ...]\n"
    "          --report FILE --model FILE --output FILE [--model FILE --output FILE ...]\n"
    "       %s --hash FILE ... | --help | --version\n"
    "\n"
    "Runs models on rows and writes the raw bytes of their outputs and a report; see README.md.\n"
    "Exit codes: 0 done, 2 usage, 10 a file cannot be read, 11 no runtime, 12 wrong runtime or self-test\n"
    "failed, 13 model refused, 14 rows do not fit, 15 the interpreter failed, 16 cannot write.\n";

static size_t number(const char *name, const char *text, size_t least, size_t most) {
  char *end;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end || errno || value < least || value > most)
    fail(EXIT_USAGE, "usage", "%s takes a number from %zu to %zu, not %s", name, least, most, text);
  return (size_t)value;
}

static void row_shape(job_t *job, const char *text) {
  char *copy = must_copy(text), *rest = copy, *word;
  job->row_numbers = 1;
  job->row_rank = 0;
  while ((word = strsep(&rest, ","))) {
    if (job->row_rank == MOST_DIMENSIONS - 1) fail(EXIT_USAGE, "usage", "--row has too many dimensions");
    size_t size = number("--row", word, 1, (size_t)1 << 31);
    if (job->row_numbers > ((size_t)1 << 40) / size) fail(EXIT_USAGE, "usage", "--row is too large");
    job->row[job->row_rank++] = size;
    job->row_numbers *= size;
  }
  free(copy);
}

static int one_of(const char *text, const char *a, const char *b) { return !strcmp(text, a) || !strcmp(text, b); }

void read_arguments(int count, char **words, job_t *job) {
  const char *list_memory = must_allocate(4 * (size_t)count * sizeof(char *));
  memset(job, 0, sizeof *job);
  job->libraries = (const char **)list_memory;
  job->models = job->libraries + count;
  job->outputs = job->models + count;
  job->model_sha256 = job->outputs + count;
  job->threads = 1;
  job->kernels = "XNNPACK";
  job->batch = 256;
  for (int i = 1; i < count; i++) {
    const char *name = words[i], *value = i + 1 < count ? words[i + 1] : NULL;
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
      printf(usage, program_name, program_name);
      exit(EXIT_DONE);
    }
    if (!strcmp(name, "--version")) {
      printf("%s 1\n", program_name);
      exit(EXIT_DONE);
    }
    if (!value) fail(EXIT_USAGE, "usage", "%s needs a value, or is no option; see --help", name);
    i++;
    if (!strcmp(name, "--library"))
      job->libraries[job->library_count++] = value;
    else if (!strcmp(name, "--model"))
      job->models[job->model_count++] = value;
    else if (!strcmp(name, "--output"))
      job->outputs[job->output_count++] = value;
    else if (!strcmp(name, "--library-sha256"))
      job->library_sha256 = value;
    else if (!strcmp(name, "--check"))
      job->check = value;
    else if (!strcmp(name, "--model-sha256"))
      job->model_sha256[job->model_sha256_count++] = value;
    else if (!strcmp(name, "--input-sha256"))
      job->input_sha256 = value;
    else if (!strcmp(name, "--input"))
      job->input = value;
    else if (!strcmp(name, "--input-type"))
      job->input_type = value;
    else if (!strcmp(name, "--kernels"))
      job->kernels = value;
    else if (!strcmp(name, "--report"))
      job->report = value;
    else if (!strcmp(name, "--row"))
      row_shape(job, value);
    else if (!strcmp(name, "--rows"))
      job->rows = number(name, value, 1, (size_t)1 << 40);
    else if (!strcmp(name, "--threads"))
      job->threads = (int)number(name, value, 1, 256);
    else if (!strcmp(name, "--batch"))
      job->batch = number(name, value, 1, 1 << 20);
    else if (!strcmp(name, "--latency-rows"))
      job->latency_rows = number(name, value, 0, 1 << 20);
    else
      fail(EXIT_USAGE, "usage", "unknown option %s; see --help", name);
  }
  if (!job->library_count || !job->library_sha256 || !job->check || !job->input || !job->input_type ||
      !job->row_rank || !job->rows || !job->report || !job->model_count)
    fail(EXIT_USAGE, "usage", "an option is missing; see --help");
  if (job->rows > ((size_t)1 << 60) / job->row_numbers)
    fail(EXIT_USAGE, "usage", "--rows and --row: more numbers than a machine has");
  if (job->model_count != job->output_count) fail(EXIT_USAGE, "usage", "every --model needs an --output");
  if (job->model_sha256_count && job->model_sha256_count != job->model_count)
    fail(EXIT_USAGE, "usage", "a --model-sha256 for every --model, or none");
  if (!one_of(job->input_type, "float32", "uint8")) fail(EXIT_USAGE, "usage", "--input-type is float32 or uint8");
  if (!one_of(job->kernels, "XNNPACK", "built-in")) fail(EXIT_USAGE, "usage", "--kernels are XNNPACK or built-in");
}
