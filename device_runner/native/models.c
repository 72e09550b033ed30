#define _GNU_SOURCE
#include "models.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "rows.h"

enum { PROBED_ROWS = 8, WARM_UP_ROWS = 20 };
static const double LATENCY_SECONDS = 2.0;

static int run_rows(feed_t *source, model_t *model, size_t first, size_t rows, void *output) {
  const void *input = encoded_rows(source, model, first, rows);
  return engine_run(model, input, model->exact ? model->batch : rows, output);
}

int vector_a_row(const tensor_t *tensor, size_t rows) {
  int wide = 0;
  for (int i = 1; i < tensor->rank; i++) wide += tensor->shape[i] != 1;
  return tensor->rank > 0 && tensor->shape[0] == (int64_t)rows && wide <= 1;
}

/* Whether the first rows get the same answers, bit for bit, in a batch as one by one. Some graphs run only at
   the batch that they were made for. */
static int same_alone(feed_t *source, model_t *many, model_t *one, size_t together) {
  size_t probed = together < PROBED_ROWS ? together : PROBED_ROWS;
  char *answers = must_allocate(many->batch * many->row_bytes), *alone = must_allocate(one->row_bytes);
  int same = run_rows(source, many, 0, together, answers);
  for (size_t i = 0; same && i < probed; i++)
    same = run_rows(source, one, i, 1, alone) && !memcmp(alone, answers + i * many->row_bytes, one->row_bytes);
  free(answers);
  free(alone);
  return same;
}

/* The model at the largest batch whose answers are those of single rows. */
static model_t *open_model(feed_t *source, const char *path) {
  const job_t *job = source->job;
  model_t *one = engine_open(job, path, 1);
  prepare_feed(source, one, one->batch > job->batch ? one->batch : job->batch);
  if (one->batch != 1 || job->batch == 1) return one;
  model_t *many = engine_open(job, path, job->batch);
  if (!many) return one;
  size_t full = many->batch < job->rows ? many->batch : job->rows;
  size_t few = full < PROBED_ROWS ? full : PROBED_ROWS;
  int same = many->batch > 1 && many->row_bytes == one->row_bytes && same_alone(source, many, one, full) &&
             same_alone(source, many, one, few);
  engine_close(same ? one : many);
  return same ? many : one;
}

static void report_tensor(FILE *report, const tensor_t *tensor) {
  fprintf(report, "{\"name\": ");
  json_text(report, tensor->name);
  fprintf(report, ", \"dtype\": \"%s\", \"shape\": [", tensor->type);
  for (int i = 0; i < tensor->rank; i++) fprintf(report, "%s%lld", i ? ", " : "", (long long)tensor->shape[i]);
  fprintf(report, "], \"scale\": ");
  if (tensor->quantized && isfinite(tensor->scale)) /* JSON has no other numbers */
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
  double *took = must_allocate(job->latency_rows * sizeof *took), first = 0, sum = 0, began = seconds_now();
  size_t timed = 0, warm = 0;
  for (size_t i = 0; timed < job->latency_rows && (timed == 0 || seconds_now() - began < LATENCY_SECONDS); i++) {
    const void *input = encoded_rows(source, model, i % job->rows, 1);
    double start = seconds_now();
    if (!engine_run(model, input, model->exact ? model->batch : 1, answer))
      fail(EXIT_RUNTIME, "runtime", "the interpreter failed while it was timed");
    double seconds = seconds_now() - start;
    if (i == 0) first = seconds;
    /* A slow device warms up for half of its time at most. */
    if (i < WARM_UP_ROWS && seconds_now() - began < LATENCY_SECONDS / 2)
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

void run_model(const job_t *job, mapped_t rows, hashing_t *rows_hash, size_t number, FILE *report) {
  const char *path = job->models[number];
  char sha256[SHA256_HEX], encoded_sha256[SHA256_HEX], output_sha256[SHA256_HEX];
  double began = seconds_now(), inside = 0;
  size_t bytes = hash_file(path, sha256);
  check_hash(path, sha256, job->model_sha256_count ? job->model_sha256[number] : NULL);
  feed_t source = {job, rows, AS_FLOAT, NULL};
  model_t *model = open_model(&source, path);
  double ready = seconds_now();
  FILE *output = fopen(job->outputs[number], "wb");
  if (!output) fail(EXIT_STORAGE, "storage", "cannot write %s: %s", job->outputs[number], strerror(errno));
  setvbuf(output, NULL, _IOFBF, 1 << 20);
  sha256_t encoded, answered;
  sha256_start(&encoded);
  sha256_start(&answered);
  /* Rows that go as they are are hashed already, or just now. */
  int as_given = goes_as_given(&source);
  char *answers = must_allocate(model->batch * model->row_bytes);
  for (size_t first = 0; first < job->rows; first += model->batch) {
    size_t count = job->rows - first < model->batch ? job->rows - first : model->batch;
    const void *input = encoded_rows(&source, model, first, count);
    if (!as_given) sha256_add(&encoded, input, count * job->row_numbers * model->input.number_bytes);
    double start = seconds_now();
    if (!engine_run(model, input, model->exact ? model->batch : count, answers))
      fail(EXIT_RUNTIME, "runtime", "the interpreter failed at row %zu", first);
    inside += seconds_now() - start;
    sha256_add(&answered, answers, count * model->row_bytes);
    if (fwrite(answers, model->row_bytes, count, output) != count)
      fail(EXIT_STORAGE, "storage", "cannot write the output: %s", strerror(errno));
  }
  if (fflush(output) || fclose(output)) fail(EXIT_STORAGE, "storage", "cannot write the output: %s", strerror(errno));
  sha256_end(&encoded, encoded_sha256);
  sha256_end(&answered, output_sha256);
  fprintf(report, "{\"sha256\": \"%s\", \"bytes\": %zu, \"encoded_sha256\": \"%s\",\n  \"input\": ", sha256, bytes,
          as_given ? hash_when_done(rows_hash) : encoded_sha256);
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
