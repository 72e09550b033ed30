/* The course of a run, the same for every interpreter: check the runtime, run every model, write the report. */
#define _GNU_SOURCE
#include "runner.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "arguments.h"
#include "json.h"

enum { PROBED_ROWS = 8, CHECK_NUMBERS = 4, WARM_UP_ROWS = 20 };
static const double LATENCY_SECONDS = 2.0;

static long current_model = -1;

void fail(int code, const char *kind, const char *format, ...) {
  char text[1024];
  va_list rest;
  va_start(rest, format);
  vsnprintf(text, sizeof text, format, rest);
  va_end(rest);
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

static double now(void) {
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

typedef struct {
  const unsigned char *bytes;
  size_t size;
} mapped_t;

static mapped_t map_file(const char *path) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  struct stat about;
  if (file < 0 || fstat(file, &about)) fail(EXIT_IO, "io", "cannot open %s: %s", path, strerror(errno));
  mapped_t result = {(const unsigned char *)"", (size_t)about.st_size};
  if (about.st_size) {
    void *memory = mmap(NULL, result.size, PROT_READ, MAP_PRIVATE, file, 0);
    if (memory == MAP_FAILED) fail(EXIT_IO, "io", "cannot read %s: %s", path, strerror(errno));
    result.bytes = memory;
  }
  close(file);
  return result;
}

static void unmap_file(mapped_t file) {
  if (file.size) munmap((void *)file.bytes, file.size);
}

static size_t hash_file(const char *path, char hex[SHA256_HEX]) {
  mapped_t file = map_file(path);
  sha256_t hash;
  sha256_start(&hash);
  sha256_add(&hash, file.bytes, file.size);
  sha256_end(&hash, hex);
  unmap_file(file);
  return file.size;
}

/* Before anything reads a file: whether it is the one that was meant. */
static void check_hash(const char *path, const char *found, const char *meant) {
  if (meant && strcmp(found, meant))
    fail(EXIT_IO, "changed", "%s is another than was sent: %.16s, not %.16s", path, found, meant);
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
  job_t alone = *job;
  alone.row_rank = 1;
  alone.row[0] = alone.row_numbers = CHECK_NUMBERS;
  model_t *model = engine_open(&alone, job->check, 1);
  if (strcmp(model->input.type, "float32") || strcmp(model->output.type, "float32") ||
      model->row_bytes != sizeof numbers || model->batch != 1)
    fail(EXIT_LIBRARY, "library", "self-test: the check model is read wrongly");
  float *input = must_allocate(sizeof numbers + OVERREAD_BYTES), output[CHECK_NUMBERS];
  memcpy(input, numbers, sizeof numbers);
  if (!engine_run(model, input, 1, output)) fail(EXIT_LIBRARY, "library", "self-test: the interpreter failed");
  double sum = 0, worst = 0;
  for (int i = 0; i < CHECK_NUMBERS; i++) sum += exp(numbers[i]);
  for (int i = 0; i < CHECK_NUMBERS; i++) {
    double apart = fabs((double)output[i] - exp(numbers[i]) / sum);
    if (!(apart <= worst)) worst = apart;
  }
  if (!(worst <= 1e-5)) fail(EXIT_LIBRARY, "library", "self-test: a softmax came out wrong by %g", worst);
  free(input);
  engine_close(model);
  return worst;
}

/* --- rows as a model takes them ------------------------------------------------------------------------ */

typedef enum { AS_FLOAT, AS_INT8, AS_UINT8, AS_INT16, AS_INT32, AS_GIVEN } coding_t;

static coding_t coding_of(const job_t *job, const model_t *model) {
  const tensor_t *input = &model->input;
  int fits = input->rank == job->row_rank + 1;
  for (int i = 0; fits && i < job->row_rank; i++)
    fits = input->shape[i + 1] == -1 || input->shape[i + 1] == (int64_t)job->row[i];
  if (!fits) fail(EXIT_ROWS, "rows", "the model takes rows of another shape");
  if (!strcmp(input->type, "float32")) return AS_FLOAT;
  if (!input->quantized) {
    if (strcmp(input->type, "uint8") || strcmp(job->input_type, "uint8"))
      fail(EXIT_ROWS, "rows", "the model takes %s without a scale", input->type);
    return AS_GIVEN;
  }
  if (!(input->scale > 0)) fail(EXIT_ROWS, "rows", "the input's scale is %g", (double)input->scale);
  if (!strcmp(input->type, "int8")) return AS_INT8;
  if (!strcmp(input->type, "uint8")) return AS_UINT8;
  if (!strcmp(input->type, "int16")) return AS_INT16;
  if (!strcmp(input->type, "int32")) return AS_INT32;
  fail(EXIT_ROWS, "rows", "the model takes inputs of type %s", input->type);
}

/* q = round half to even (x / scale) + zero point in float32, clipped: the arithmetic of inputs.py. Adding and
   taking away 1.5 * 2^23 rounds as rintf does, and without a call: beyond 2^21 all types but int32 are clipped. */
#define ROUNDED(q) (((q) + 12582912.0f) - 12582912.0f)
#define CLIPPED(q, low, high) ((q) < (low) ? (low) : (q) > (high) ? (high) : (q))
#define ENCODE_AS(type, low, high, value)                                                  \
  for (size_t i = 0; i < count; i++) {                                                     \
    float q = CLIPPED((value) / scale, -2097152.0f, 2097152.0f);                           \
    ((type *)output)[i] = (type)(int)CLIPPED(ROUNDED(q) + zero, low, high);                \
  }
#define ENCODE(type, low, high)                                       \
  if (bytes) ENCODE_AS(type, low, high, (float)bytes[i])              \
  else ENCODE_AS(type, low, high, floats[i])                          \
  break

static void encode(coding_t coding, const tensor_t *tensor, const void *input, int is_bytes, size_t count,
                   void *output) {
  const float *floats = input, scale = tensor->scale, zero = (float)tensor->zero_point;
  const unsigned char *bytes = is_bytes ? input : NULL;
  switch (coding) {
    case AS_GIVEN:
      memcpy(output, input, count);
      break;
    case AS_FLOAT:
      if (!is_bytes)
        memcpy(output, input, count * sizeof *floats);
      else
        for (size_t i = 0; i < count; i++) ((float *)output)[i] = bytes[i];
      break;
    case AS_INT8:
      ENCODE(int8_t, -128.0f, 127.0f);
    case AS_UINT8:
      ENCODE(uint8_t, 0.0f, 255.0f);
    case AS_INT16:
      ENCODE(int16_t, -32768.0f, 32767.0f);
    case AS_INT32:
      for (size_t i = 0; i < count; i++) {
        float q = rintf((bytes ? (float)bytes[i] : floats[i]) / scale) + zero;
        ((int32_t *)output)[i] = (int32_t)CLIPPED(q, -2147483648.0f, 2147483520.0f);
      }
      break;
  }
}

/* --- a model of the job --------------------------------------------------------------------------------- */

typedef struct {
  const job_t *job;
  mapped_t rows;
  coding_t coding;
  char *encoded; /* one batch, with zeros behind the rows */
} feed_t;

static const void *feed(feed_t *feed, const model_t *model, size_t first, size_t rows) {
  const job_t *job = feed->job;
  int is_bytes = !strcmp(job->input_type, "uint8");
  size_t width = job->row_numbers * (is_bytes ? 1 : sizeof(float));
  encode(feed->coding, &model->input, feed->rows.bytes + first * width, is_bytes, rows * job->row_numbers,
         feed->encoded);
  size_t row = job->row_numbers * model->input.number_bytes;
  if (rows < model->batch) memset(feed->encoded + rows * row, 0, (model->batch - rows) * row);
  return feed->encoded;
}

static void run_rows(feed_t *source, model_t *model, size_t first, size_t rows, void *output) {
  const void *input = feed(source, model, first, rows);
  if (!engine_run(model, input, model->exact ? model->batch : rows, output))
    fail(EXIT_RUNTIME, "runtime", "the interpreter failed at row %zu", first);
}

/* Whether the first rows get the same answers, bit for bit, in a batch as one by one. */
static int same_alone(feed_t *source, model_t *many, model_t *one, size_t together) {
  size_t probed = together < PROBED_ROWS ? together : PROBED_ROWS;
  char *answers = must_allocate(many->batch * many->row_bytes), *alone = must_allocate(one->row_bytes);
  run_rows(source, many, 0, together, answers);
  int same = 1;
  for (size_t i = 0; same && i < probed; i++) {
    run_rows(source, one, i, 1, alone);
    same = !memcmp(alone, answers + i * many->row_bytes, one->row_bytes);
  }
  free(answers);
  free(alone);
  return same;
}

/* The model at the largest batch whose answers are those of single rows. */
static model_t *open_model(feed_t *source, const char *path) {
  const job_t *job = source->job;
  model_t *one = engine_open(job, path, 1);
  if (!one) fail(EXIT_MODEL, "model", "it takes no row");
  source->coding = coding_of(job, one);
  size_t most = one->batch > job->batch ? one->batch : job->batch;
  source->encoded = must_allocate(most * job->row_numbers * one->input.number_bytes + OVERREAD_BYTES);
  if (one->batch != 1 || job->batch == 1) return one;
  model_t *many = engine_open(job, path, job->batch);
  if (!many || many->row_bytes != one->row_bytes) return one;
  size_t full = many->batch < job->rows ? many->batch : job->rows;
  size_t few = full < PROBED_ROWS ? full : PROBED_ROWS;
  int same = many->batch > 1 && same_alone(source, many, one, full) && same_alone(source, many, one, few);
  engine_close(same ? one : many);
  return same ? many : one;
}

static void report_tensor(FILE *report, const tensor_t *tensor) {
  fprintf(report, "{\"name\": ");
  json_text(report, tensor->name);
  fprintf(report, ", \"dtype\": \"%s\", \"shape\": [", tensor->type);
  for (int i = 0; i < tensor->rank; i++) fprintf(report, "%s%lld", i ? ", " : "", (long long)tensor->shape[i]);
  fprintf(report, "], \"scale\": ");
  if (tensor->quantized)
    fprintf(report, "%.9g, \"zero_point\": %lld", (double)tensor->scale, (long long)tensor->zero_point);
  else
    fprintf(report, "null, \"zero_point\": null");
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Single rows, one by one, in an instance of their own: what an app waits for. */
static void report_latency(FILE *report, feed_t *source, const char *path) {
  const job_t *job = source->job;
  if (!job->latency_rows) {
    fprintf(report, "null");
    return;
  }
  model_t *model = engine_open(job, path, 1);
  char *answer = must_allocate(model->batch * model->row_bytes);
  double *took = must_allocate(job->latency_rows * sizeof *took), first = 0, sum = 0, began = now();
  size_t timed = 0, warm = 0;
  for (size_t i = 0; timed < job->latency_rows && (timed == 0 || now() - began < LATENCY_SECONDS); i++) {
    const void *input = feed(source, model, i % job->rows, 1);
    double start = now();
    if (!engine_run(model, input, model->exact ? model->batch : 1, answer))
      fail(EXIT_RUNTIME, "runtime", "the interpreter failed while it was timed");
    double seconds = now() - start;
    if (i == 0) first = seconds;
    /* A slow device warms up for half of its time at most. */
    if (i < WARM_UP_ROWS && now() - began < LATENCY_SECONDS / 2)
      warm++;
    else
      sum += took[timed++] = seconds;
  }
  qsort(took, timed, sizeof *took, ascending);
  double median = 0.5 * (took[(timed - 1) / 2] + took[timed / 2]);
  size_t high = (size_t)ceil(0.95 * (double)timed);
  fprintf(report,
          "{\"rows\": %zu, \"warm_up\": %zu, \"first_us\": %.3f, \"median_us\": %.3f, \"p95_us\": %.3f, "
          "\"mean_us\": %.3f, \"min_us\": %.3f}",
          timed, warm, 1e6 * first, 1e6 * median, 1e6 * took[high ? high - 1 : 0], 1e6 * sum / (double)timed,
          1e6 * took[0]);
  free(took);
  free(answer);
  engine_close(model);
}

/* The rows are hashed beside the first model's run; the report waits for it. */
typedef struct {
  mapped_t rows;
  const job_t *job;
  char sha256[SHA256_HEX];
  pthread_t thread;
  int done;
} hashing_t;

static void *hash_rows(void *argument) {
  hashing_t *hashing = argument;
  sha256_t hash;
  sha256_start(&hash);
  sha256_add(&hash, hashing->rows.bytes, hashing->rows.size);
  sha256_end(&hash, hashing->sha256);
  return NULL;
}

/* The rows' hash, once it is there; ends the program if they are others than were meant. */
static const char *rows_sha256(hashing_t *hashing) {
  if (!hashing->done) {
    pthread_join(hashing->thread, NULL);
    hashing->done = 1;
    check_hash(hashing->job->input, hashing->sha256, hashing->job->input_sha256);
  }
  return hashing->sha256;
}

static void run_model(const job_t *job, mapped_t rows, hashing_t *hashing, size_t number, FILE *report) {
  const char *path = job->models[number];
  char sha256[SHA256_HEX], encoded_sha256[SHA256_HEX], output_sha256[SHA256_HEX];
  double began = now(), inside = 0;
  size_t bytes = hash_file(path, sha256);
  check_hash(path, sha256, job->model_sha256_count ? job->model_sha256[number] : NULL);
  feed_t source = {job, rows, AS_FLOAT, NULL};
  model_t *model = open_model(&source, path);
  double ready = now();
  FILE *output = fopen(job->outputs[number], "wb");
  if (!output) fail(EXIT_STORAGE, "storage", "cannot write %s: %s", job->outputs[number], strerror(errno));
  setvbuf(output, NULL, _IOFBF, 1 << 20);
  sha256_t encoded, answered;
  sha256_start(&encoded);
  sha256_start(&answered);
  int as_given = source.coding == AS_GIVEN || (source.coding == AS_FLOAT && strcmp(job->input_type, "uint8"));
  char *answers = must_allocate(model->batch * model->row_bytes);
  for (size_t first = 0; first < job->rows; first += model->batch) {
    size_t count = job->rows - first < model->batch ? job->rows - first : model->batch;
    const void *input = feed(&source, model, first, count);
    if (!as_given) sha256_add(&encoded, input, count * job->row_numbers * model->input.number_bytes);
    double start = now();
    if (!engine_run(model, input, model->exact ? model->batch : count, answers))
      fail(EXIT_RUNTIME, "runtime", "the interpreter failed at row %zu", first);
    inside += now() - start;
    sha256_add(&answered, answers, count * model->row_bytes);
    if (fwrite(answers, model->row_bytes, count, output) != count)
      fail(EXIT_STORAGE, "storage", "cannot write the output: %s", strerror(errno));
  }
  if (fflush(output) || fclose(output)) fail(EXIT_STORAGE, "storage", "cannot write the output: %s", strerror(errno));
  sha256_end(&encoded, encoded_sha256);
  sha256_end(&answered, output_sha256);
  fprintf(report, "{\"sha256\": \"%s\", \"bytes\": %zu, \"encoded_sha256\": \"%s\",\n  \"input\": ", sha256, bytes,
          as_given ? rows_sha256(hashing) : encoded_sha256);
  report_tensor(report, &model->input);
  fprintf(report, "},\n  \"output\": ");
  report_tensor(report, &model->output);
  fprintf(report, ", \"bytes\": %zu, \"sha256\": \"%s\"},\n  \"rows\": %zu, \"batch\": %zu, \"batch_resizable\": %s, ",
          job->rows * model->row_bytes, output_sha256, job->rows, model->batch, model->resizable ? "true" : "false");
  fprintf(report, "\"delegates\": [");
  for (int i = 0; i < model->delegate_count; i++) {
    fprintf(report, "%s", i ? ", " : "");
    json_text(report, model->delegates[i]);
  }
  fprintf(report, "], \"fully_accelerated\": %s,\n  \"setup_seconds\": %.6f, \"seconds\": %.6f, \"latency\": ",
          model->accelerated < 0 ? "null" : model->accelerated ? "true" : "false", ready - began, inside);
  free(answers);
  engine_close(model);
  report_latency(report, &source, path);
  fprintf(report, "}");
  free(source.encoded);
}

/* `PROGRAM --hash FILE ...`: as sha256sum prints, which is slow on most devices. */
static void hash_files(int count, char **paths) {
  for (int i = 0; i < count; i++) {
    char hex[SHA256_HEX];
    hash_file(paths[i], hex);
    printf("%s  %s\n", hex, paths[i]);
  }
  if (fflush(stdout)) fail(EXIT_STORAGE, "storage", "cannot print: %s", strerror(errno));
}

int main(int count, char **words) {
  job_t job;
  if (count > 1 && !strcmp(words[1], "--hash")) {
    hash_files(count - 2, words + 2);
    return EXIT_DONE;
  }
  read_arguments(count, words, &job);
  double began = now();
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
  hashing_t hashing = {.rows = rows, .job = &job};
  if (pthread_create(&hashing.thread, NULL, hash_rows, &hashing)) {
    hash_rows(&hashing);
    hashing.done = 1;
    check_hash(job.input, hashing.sha256, job.input_sha256);
  }

  char *part = must_allocate(strlen(job.report) + 6);
  sprintf(part, "%s.part", job.report);
  FILE *report = fopen(part, "w");
  if (!report) fail(EXIT_STORAGE, "storage", "cannot write %s: %s", part, strerror(errno));
  struct utsname system;
  uname(&system);
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
  fprintf(report, ", \"system\": \"%s %s\", \"threads\": %d, \"kernels\": \"%s\",\n", system.sysname, system.release,
          job.threads, job.kernels);
  fprintf(report, " \"check\": {\"max_abs\": %.3g},\n \"models\": [", apart);
  for (size_t i = 0; i < job.model_count; i++) {
    current_model = (long)i;
    fprintf(report, "%s\n ", i ? "," : "");
    run_model(&job, rows, &hashing, i, report);
  }
  current_model = -1;
  fprintf(report, "],\n \"input\": {\"sha256\": \"%s\", \"bytes\": %zu, \"rows\": %zu, \"type\": \"%s\", \"row\": [",
          rows_sha256(&hashing), rows.size, job.rows, job.input_type);
  for (int i = 0; i < job.row_rank; i++) fprintf(report, "%s%zu", i ? ", " : "", job.row[i]);
  fprintf(report, "]},\n \"memory_before_models_bytes\": %zu, \"peak_memory_bytes\": %zu, \"seconds\": %.6f}\n", before,
          status_bytes("VmHWM"), now() - began);
  if (fflush(report) || fsync(fileno(report)) || fclose(report) || rename(part, job.report))
    fail(EXIT_STORAGE, "storage", "cannot write the report: %s", strerror(errno));
  _exit(EXIT_DONE); /* everything is on disk; an interpreter's own clean-up could only fail */
}
